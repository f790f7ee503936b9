use std::collections::BTreeSet;

use proptest::prelude::*;
use shared::domain::UsageClass::{
    CacheRead, CacheWrite1h, CacheWrite5m, Input, InputAudio, Output, OutputAudio, Reasoning, WebSearches,
};

use super::*;

const MILLION: u64 = 1_000_000;

fn table(json: &str) -> PriceTable {
    PriceTable::build(1, &parse(json).unwrap(), None, &BTreeMap::new())
}

fn shipped() -> PriceTable {
    PriceTable::build(1, &built_in().unwrap(), None, &BTreeMap::new())
}

fn by_hand(prices: &[(&str, &str)]) -> Result<SetPrices, SetPriceError> {
    SetPrices::parse(&prices.iter().map(|&(class, price)| (class.to_owned(), price.to_owned())).collect())
}

/// Entries as published on 2026-11-22, some of them shortened.
const PUBLISHED: &str = include_str!("published.json");

/// A call of the first column's model costs so many nano-dollars, and has a price or not.
type Case = (&'static str, &'static [(UsageClass, u64)], Option<ServiceTier>, i64, bool);

fn check(cases: &[Case]) {
    let table = table(PUBLISHED);
    for &(model, usage, tier, nanos, unpriced) in cases {
        let of_call = Usage::of(usage);
        let cost = table.cost(&[model], &of_call, tier);
        assert_eq!((cost.total.as_nanos(), cost.unpriced), (nanos, unpriced), "{model} {usage:?} {tier:?}");
        assert_eq!(total(&of_call, &cost.rates), cost.total, "recomputed: {model} {usage:?} {tier:?}");
    }
}

#[test]
fn anthropics_prices_tell_the_kinds_of_cache_apart() {
    use ServiceTier::{Batch, Fast, Priority};
    check(&[
        ("claude-opus-5", &[(Input, 1000)], None, 5_000_000, false),
        ("claude-opus-5", &[(CacheWrite5m, 1000)], None, 6_250_000, false),
        ("claude-opus-5", &[(CacheWrite1h, 1000)], None, 10_000_000, false),
        ("claude-opus-5", &[(CacheRead, 1000)], None, 500_000, false),
        ("claude-opus-5", &[(Output, 1000), (Reasoning, 500)], None, 25_000_000, false),
        ("claude-opus-5", &[(WebSearches, 3)], None, 30_000_000, false),
        (
            "claude-opus-5",
            &[(Input, 100), (CacheRead, 2000), (CacheWrite5m, 300), (CacheWrite1h, 40), (Output, 500)],
            None,
            500_000 + 1_000_000 + 1_875_000 + 400_000 + 12_500_000,
            false,
        ),
        // A fast mode multiplies what tokens cost, not what searches cost.
        ("claude-opus-5", &[(CacheWrite1h, 1000), (WebSearches, 1)], Some(Fast), 30_000_000, false),
        ("claude-opus-5", &[(Input, 1000)], Some(Batch), 2_500_000, false),
        // No batch price for this kind of write: charged as standard, and said to be unpriced.
        ("claude-opus-5", &[(CacheWrite1h, 1000)], Some(Batch), 10_000_000, true),
        ("claude-opus-5", &[(Input, 1000)], Some(Priority), 5_000_000, true),
        ("claude-opus-5", &[], Some(Priority), 0, false),
        ("claude-opus-5", &[(InputAudio, 7), (Input, 1000)], None, 5_000_000, true),
        // The whole call costs the rates of its prompt's length; prompt tokens of every kind count for it.
        ("claude-haiku-5-5", &[(Input, 100_000), (Output, 1000)], None, 10_000_000 + 500_000, false),
        (
            "claude-haiku-5-5",
            &[(Input, 99_999), (CacheRead, 2), (Output, 1000)],
            None,
            49_999_500 + 100 + 2_500_000,
            false,
        ),
        ("claude-haiku-5-5", &[(CacheWrite1h, 200_000)], None, 200_000_000, false),
    ]);
}

#[test]
fn openais_prices_go_by_tier_and_length() {
    use ServiceTier::{Batch, Fast, Flex, Other, Priority};
    const ALL: &[(UsageClass, u64)] = &[(Input, 1000), (CacheRead, 1000), (Output, 1000)];
    const LONG: &[(UsageClass, u64)] = &[(Input, 272_001), (Output, 1000)];
    check(&[
        ("gpt-5", ALL, None, 1_250_000 + 125_000 + 10_000_000, false),
        ("gpt-5", ALL, Some(Priority), 2_500_000 + 250_000 + 20_000_000, false),
        ("gpt-5", ALL, Some(Flex), 625_000 + 62_500 + 5_000_000, false),
        ("gpt-5", &[(Output, 1000)], Some(Fast), 20_000_000, false),
        ("gpt-5", &[(Output, 1000), (WebSearches, 2)], Some(Flex), 25_000_000, false),
        ("gpt-5", &[(CacheRead, 1000)], Some(Batch), 125_000, true),
        ("gpt-5", &[(Input, 1000)], Some(Other), 1_250_000, true),
        ("gpt-5", &[(CacheWrite5m, 9)], None, 0, true),
        ("gpt-5.6", &[(CacheWrite5m, 1000)], None, 5_000_000, false),
        ("gpt-5.6", &[(Input, 272_000), (Output, 1000)], None, 1_088_000_000 + 20_000_000, false),
        ("gpt-5.6", LONG, None, 2_176_008_000 + 30_000_000, false),
        ("gpt-5.6", LONG, Some(Priority), 4_352_016_000 + 60_000_000, false),
        ("gpt-5.6", LONG, Some(Flex), 1_088_004_000 + 15_000_000, false),
        // Of long flex calls the list does not price the cache: as in long standard calls, and unpriced.
        ("gpt-5.6", &[(CacheRead, 300_000)], Some(Flex), 240_000_000, true),
        ("gpt-audio", &[(InputAudio, 1000), (OutputAudio, 1000)], None, 32_000_000 + 64_000_000, false),
    ]);
}

#[test]
fn geminis_prices_go_by_length_and_tell_audio_apart() {
    use ServiceTier::{Flex, Priority};
    check(&[
        ("gemini-2.5-pro", &[(Input, 200_000), (Output, 1000)], None, 250_000_000 + 10_000_000, false),
        ("gemini-2.5-pro", &[(Input, 200_001), (Output, 1000)], None, 500_002_500 + 15_000_000, false),
        (
            "gemini/gemini-2.5-pro",
            &[(Input, 400_000), (CacheRead, 100_000)],
            None,
            1_000_000_000 + 25_000_000,
            false,
        ),
        ("gemini-2.5-pro", &[(Input, 400_000)], Some(Priority), 1_800_000_000, false),
        ("gemini-2.5-pro", &[(Input, 100_000)], Some(Flex), 62_500_000, false),
        ("gemini-2.5-pro", &[(Input, 400_000)], Some(Flex), 1_000_000_000, true),
        ("gemini-2.5-flash", &[(Input, 1000), (InputAudio, 1000)], None, 300_000 + 1_000_000, false),
        ("gemini-2.5-flash", &[(InputAudio, 1000)], Some(Priority), 1_800_000, false),
        ("gemini-2.5-flash", &[(InputAudio, 1000)], Some(Flex), 1_000_000, true),
        // The reasoning price that repeats the output's does not stand in the way of the tier's.
        ("gemini-2.5-flash", &[(Output, 1000), (Reasoning, 900)], Some(Priority), 4_500_000, false),
        // The entry with which the format documents itself is no model.
        ("sample_spec", &[(Input, 1)], None, 0, true),
    ]);
}

#[test]
fn the_first_name_with_a_price_wins() {
    let table = table(r#"{"a": {"input_cost_per_token": 1e-06}, "b": {"input_cost_per_token": 2e-06}}"#);
    let usage = Usage::of(&[(Input, 10)]);
    for (names, nanos, unpriced, priced_as) in [
        (&["a", "b"][..], 10_000, false, Some(0)),
        (&["b", "a"], 20_000, false, Some(0)),
        (&["a-2026", "c", "b"], 20_000, false, Some(2)),
        (&["A", "a ", "", "a-", "x/a"], 0, true, None),
        (&[], 0, true, None),
    ] {
        let cost = table.cost(names, &usage, None);
        assert_eq!(
            (cost.total.as_nanos(), cost.unpriced, cost.priced_as),
            (nanos, unpriced, priced_as),
            "{names:?}"
        );
    }
    assert_eq!(table.cost(&["c"], &Usage::default(), None), Cost::default());
}

#[test]
fn reasoning_costs_extra_only_where_the_list_says_so() {
    let table = table(
        r#"{"same": {"output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 2e-06},
            "other": {"output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 5e-06},
            "free": {"output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 0}}"#,
    );
    for (model, output, reasoning, nanos) in [
        ("same", 10, 4, 20_000),
        ("other", 10, 4, 6 * 2000 + 4 * 5000),
        ("other", 10, 10, 50_000),
        ("free", 10, 4, 12_000),
        // A vendor that counts reasoning beside the output is not charged below zero.
        ("other", 3, 10, 15_000),
        ("other", 0, 10, 0),
    ] {
        let usage = Usage::of(&[(Output, output), (Reasoning, reasoning)]);
        let cost = table.cost(&[model], &usage, None);
        assert_eq!((cost.total.as_nanos(), cost.unpriced), (nanos, false), "{model} {output} {reasoning}");
        assert_eq!(total(&usage, &cost.rates), cost.total);
    }
}

#[test]
fn a_row_is_rounded_once_and_half_up() {
    let table = table(r#"{"m": {"input_cost_per_token": 1e-12, "output_cost_per_token": 2.5e-10}}"#);
    for (input, output, nanos) in
        [(499, 0, 0), (500, 0, 1), (1499, 0, 1), (1500, 0, 2), (0, 1, 0), (0, 2, 1), (250, 1, 1), (249, 1, 0)]
    {
        let cost = table.cost(&["m"], &Usage::of(&[(Input, input), (Output, output)]), None);
        assert_eq!(cost.total.as_nanos(), nanos, "{input} {output}");
    }
}

#[test]
fn the_largest_usage_at_the_largest_price_saturates() {
    let mut usage = Usage::default();
    let mut rates = Rates::default();
    for &class in UsageClass::ALL {
        (usage[class], rates[class]) = (u64::MAX, u64::MAX);
    }
    assert_eq!(total(&usage, &rates), NanoUsd::from_nanos(i64::MAX));
}

#[test]
fn what_cannot_be_read_exactly_is_left_out_with_a_reason() {
    let list = parse(
        r#"{"good": {"input_cost_per_token": 3e-06, "output_cost_per_token": null, "max_tokens": "many"},
            "fine": {"input_cost_per_token": 1.5000000000000002e-07},
            "negative": {"input_cost_per_token": -1e-06},
            "text": {"output_cost_per_token": "3e-06"},
            "multiple": {"input_cost_per_token": 1e-12, "provider_specific_entry": {"fast": 1.5}},
            "huge": {"search_context_cost_per_query": 1e30},
            "number": 5,
            "bad\u001b[31m": [],
            "dall-e-3": {"mode": "image_generation", "input_cost_per_pixel": 4e-08},
            "gpt-image-1": {"mode": "image_generation", "input_cost_per_token": 5e-06},
            "lyria": {"mode": "chat", "input_cost_per_token": 0, "output_cost_per_image": 0.04},
            "nothing": {"mode": "chat"},
            "no cost": {"input_cost_per_token": 0, "output_cost_per_token": 0.0, "output_cost_per_image": null}}"#,
    )
    .unwrap();
    assert_eq!(
        list.skipped,
        [
            "bad\\u{1b}[31m: it is not an object",
            "fine: input_cost_per_token is finer than a pico-dollar",
            "huge: search_context_cost_per_query is too large",
            "multiple: provider_specific_entry.fast is finer than a pico-dollar",
            "negative: input_cost_per_token is below zero",
            "number: it is not an object",
            "text: output_cost_per_token is not a number",
            "4 entries without prices that the relay counts by, such as dall-e-3",
        ]
    );
    assert_eq!(
        list.models.keys().map(|name| &**name).collect::<BTreeSet<_>>(),
        BTreeSet::from(["good", "no cost"])
    );
}

#[test]
fn a_file_that_is_no_price_list_is_refused_in_a_sentence() {
    for (json, sentence) in [
        (
            "",
            "a price list is a JSON object with one object for each model; this one is none from line 1, column 1 on",
        ),
        (
            "[]",
            "a price list is a JSON object with one object for each model; this one is none from line 1, column 1 on",
        ),
        (
            "{\"a\":",
            "a price list is a JSON object with one object for each model; this one is none from line 1, column 5 on",
        ),
        ("{}", "the price list has no usable price"),
        ("{\"a\": 1}", "the price list has no usable price (a: it is not an object)"),
        (
            r#"{"a": {"mode": "chat"}}"#,
            "the price list has no usable price (1 entry without prices that the relay counts by, such as a)",
        ),
    ] {
        assert_eq!(parse(json).unwrap_err().to_string(), sentence, "{json}");
    }
}

#[test]
fn reasons_are_listed_up_to_a_bound() {
    let entries: Vec<_> = (0..500).map(|at| format!(r#""{at}{}": 1"#, "x".repeat(300))).collect();
    let json = format!(r#"{{"m": {{"input_cost_per_token": 1}}, {}}}"#, entries.join(","));
    let skipped = parse(&json).unwrap().skipped;
    assert_eq!((skipped.len(), &*skipped[100]), (101, "and 400 more with unusable figures"));
    assert!(skipped.iter().all(|line| line.len() < 200));
}

#[test]
fn the_plain_name_of_a_gemini_model_is_the_gemini_apis() {
    let table = table(
        r#"{"gemini/x": {"input_cost_per_token": 1e-06, "litellm_provider": "gemini"},
            "x": {"input_cost_per_token": 9e-06, "litellm_provider": "vertex_ai-language-models"},
            "gemini/y": {"input_cost_per_token": 1e-06, "litellm_provider": "gemini"},
            "y": {"input_cost_per_token": 2e-06, "litellm_provider": "gemini"},
            "azure/z": {"input_cost_per_token": 4e-06, "litellm_provider": "azure"},
            "bedrock/us-east-1/w": {"input_cost_per_token": 5e-06, "litellm_provider": "bedrock"}}"#,
    );
    let usage = Usage::of(&[(Input, 1)]);
    for (name, nanos) in [
        ("x", 1000),
        ("gemini/x", 1000),
        ("y", 2000),
        ("gemini/y", 1000),
        ("azure/z", 4000),
        ("z", 0),
        ("w", 0),
    ] {
        assert_eq!(table.cost(&[name], &usage, None).total.as_nanos(), nanos, "{name}");
    }
}

#[test]
fn a_price_set_by_hand_beats_a_file_beats_the_built_in() {
    let built_in = parse(
        r#"{"a": {"input_cost_per_token": 1e-06}, "b": {"input_cost_per_token": 1e-06},
        "c": {"input_cost_per_token": 1e-06, "input_cost_per_token_priority": 2e-06}}"#,
    )
    .unwrap();
    let file = parse(
        r#"{"b": {"input_cost_per_token": 2e-06}, "c": {"input_cost_per_token": 2e-06},
        "d": {"output_cost_per_token": 2e-06}}"#,
    )
    .unwrap();
    let set =
        BTreeMap::from([("c".to_owned(), by_hand(&[("input", "3.00"), ("web_searches", "$10")]).unwrap())]);
    let before = PriceTable::build(1, &built_in, None, &BTreeMap::new());
    let after = PriceTable::build(2, &built_in, Some(&file), &set);

    let views: Vec<_> =
        after.views(None).into_iter().map(|view| (view.model, view.source, view.prices)).collect();
    let prices = |prices: &[(&str, &str)]| -> BTreeMap<String, String> {
        prices.iter().map(|&(class, price)| (class.to_owned(), price.to_owned())).collect()
    };
    assert_eq!(
        views,
        [
            ("a".to_owned(), "built_in".to_owned(), prices(&[("input", "1.00")])),
            ("b".to_owned(), "file".to_owned(), prices(&[("input", "2.00")])),
            ("c".to_owned(), "set".to_owned(), prices(&[("input", "3.00"), ("web_searches", "10.00")])),
            ("d".to_owned(), "file".to_owned(), prices(&[("output", "2.00")])),
        ]
    );
    assert_eq!(diff(&before, &after), Changes { added: 1, changed: 2, removed: 0 });
    assert_eq!(diff(&after, &before), Changes { added: 0, changed: 2, removed: 1 });
    assert_eq!(diff(&after, &after), Changes::default());
    assert_eq!((after.version(), after.names().count(), after.has("d"), after.has("D")), (2, 4, true, false));

    // What an operator sets holds for every tier.
    let cost = after.cost(&["c"], &Usage::of(&[(Input, 1), (WebSearches, 1)]), Some(ServiceTier::Priority));
    assert_eq!((cost.total.as_nanos(), cost.unpriced), (3000 + 10_000_000, false));
    assert!(after.cost(&["c"], &Usage::of(&[(Output, 1)]), None).unpriced);
}

#[test]
fn prices_set_by_hand_are_merged_by_class() {
    let owned = |prices: &[(&str, &str)]| -> BTreeMap<String, String> {
        prices.iter().map(|&(class, price)| (class.to_owned(), price.to_owned())).collect()
    };
    let before = owned(&[("input", "3"), ("output", "15"), ("of_the_future", "1")]);
    for (changes, expected) in [
        (
            &[("input", Some("$2"))][..],
            Ok(owned(&[("input", "$2"), ("output", "15"), ("of_the_future", "1")])),
        ),
        (
            &[("cache_read", Some("1")), ("output", None), ("reasoning", None)],
            Ok(owned(&[("input", "3"), ("cache_read", "1"), ("of_the_future", "1")])),
        ),
        (&[], Err("at least one price is needed, such as input".to_owned())),
        (&[("of_the_future", None)], Err("\"of_the_future\" is no class of usage".to_owned())),
        (&[("input", Some("cheap"))], Err("the price of input is written like 3.00".to_owned())),
    ] {
        let changes = changes.iter().map(|(class, price)| ((*class).to_owned(), price.map(str::to_owned)));
        match (merged(before.clone(), &changes.collect()), expected) {
            (Ok(prices), expected) => assert_eq!(Ok(prices), expected),
            (Err(error), Err(part)) => assert!(error.to_string().starts_with(&part), "{error}"),
            (Err(error), Ok(_)) => panic!("{error}"),
        }
    }
    let all = BTreeMap::from([("input".to_owned(), None)]);
    assert_eq!(merged(owned(&[("input", "3")]), &all), Err(SetPriceError::NothingLeft));
}

#[test]
fn prices_set_by_hand_are_checked() {
    for (prices, sentence) in [
        (&[][..], "at least one price is needed, such as input"),
        (
            &[("inputs", "3")],
            "\"inputs\" is no class of usage; the classes are input, cache_read, cache_write_5m, cache_write_1h, \
             input_audio, output, output_audio, reasoning, web_searches",
        ),
        (
            &[("output", "3,50")],
            "the price of output is written like 3.00 or 0.0375 (dollars per million tokens, or per thousand \
             searches); this one is not a number",
        ),
        (
            &[("output", "0.0000001")],
            "the price of output is written like 3.00 or 0.0375 (dollars per million tokens, or per thousand \
             searches); this one is finer than a pico-dollar",
        ),
    ] {
        assert_eq!(by_hand(prices).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn tiers_are_shown_with_their_own_prices_only() {
    let view = table(PUBLISHED).view("gemini-2.5-flash").unwrap();
    let lines: Vec<_> = view.prices.iter().map(|(label, price)| format!("{label}: {price}")).collect();
    assert_eq!(
        lines,
        [
            "cache_read: 0.03",
            "cache_read priority: 0.054",
            "input: 0.30",
            "input flex: 0.15",
            "input priority: 0.54",
            "input_audio: 1.00",
            "input_audio priority: 1.80",
            "output: 2.50",
            "output flex: 1.25",
            "output priority: 4.50",
        ]
    );
    let view = table(PUBLISHED).view("gpt-5.6").unwrap();
    assert_eq!(view.prices["output above 272000 priority"], "60.00");
    let view = table(PUBLISHED).view("claude-opus-5").unwrap();
    assert_eq!((&*view.prices["output fast"], &*view.prices["web_searches"]), ("50.00", "10.00"));
    let glob = Glob::from("gemini-*");
    let names: Vec<_> = table(PUBLISHED).views(Some(&glob)).into_iter().map(|view| view.model).collect();
    assert_eq!(names, ["gemini-2.5-flash", "gemini-2.5-pro"]);
}

#[test]
fn the_built_in_prices_are_whole() {
    let list = built_in().unwrap();
    assert_eq!(list.skipped, [""; 0]);
    let table = shipped();
    for model in [
        "claude-opus-5",
        "claude-sonnet-4-5",
        "claude-haiku-4-5-20251001",
        "gpt-5",
        "gpt-5.6",
        "gpt-6.1-sol",
        "o3",
        "text-embedding-3-small",
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        "gemini-embedding-001",
        "azure/gpt-5",
        "azure/eu/gpt-5",
        "sim-echo",
        "sim-slow",
        "sim-tools",
        "sim-long",
    ] {
        let cost = table.cost(&[model], &Usage::of(&[(Input, MILLION)]), None);
        assert!(cost.total > NanoUsd::ZERO && !cost.unpriced, "{model}");
    }
    let cost = table.cost(&["gpt-6.1-sol"], &Usage::of(&[(Output, MILLION)]), Some(ServiceTier::Ultrafast));
    assert_eq!((cost.total.as_nanos(), cost.unpriced), (60_000_000_000, false));
}

fn any_usage(max: u64) -> impl Strategy<Value = Usage> {
    prop::collection::vec(0..=max, UsageClass::ALL.len()).prop_map(|amounts| {
        let pairs: Vec<_> = UsageClass::ALL.iter().copied().zip(amounts).collect();
        Usage::of(&pairs)
    })
}

fn any_tier() -> impl Strategy<Value = Option<ServiceTier>> {
    use ServiceTier::{Batch, Fast, Flex, Other, Priority, Ultrafast};
    let tier = |tier| Just(Some(tier));
    prop_oneof![Just(None), tier(Priority), tier(Fast), tier(Ultrafast), tier(Flex), tier(Batch), tier(Other)]
}

/// JSON of the shape of a price list, and of shapes near it.
fn any_list() -> impl Strategy<Value = String> {
    let number = "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][-+]?[0-9]{1,20})?|null|\"[a-z]*\"|\\{\\}|\\[1\\]";
    let field = "(cache_read_input_token_cost|input_cost_per_token|output_cost_per_token|mode|provider_specific_entry)\
                 (_above_1hr)?(_above_[0-9]{0,12}k_tokens)?(_priority|_batches|_x)?";
    let entry = prop::collection::vec((field, number), 0..6).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(field, number)| format!("\"{field}\": {number}")).collect();
        format!("{{{}}}", fields.join(", "))
    });
    prop::collection::vec(("(gemini/)?[a-c]", entry), 0..5).prop_map(|entries| {
        let entries: Vec<_> = entries.iter().map(|(name, entry)| format!("\"{name}\": {entry}")).collect();
        format!("{{{}}}", entries.join(", "))
    })
}

proptest! {
    #[test]
    fn cost_is_additive_up_to_rounding(one in any_usage(1 << 40), other in any_usage(1 << 40)) {
        let classes = UsageClass::ALL.iter().filter(|&&class| class != Reasoning);
        let prices = classes.enumerate().map(|(at, class)| (class.name().to_owned(), format!("0.{at:06}")));
        let set = BTreeMap::from([("m".to_owned(), SetPrices::parse(&prices.collect()).unwrap())]);
        let table = PriceTable::build(1, &built_in().unwrap(), None, &set);
        let mut both = one;
        both += other;
        let cost = |usage| table.cost(&["m"], usage, None).total.as_nanos();
        let difference = cost(&both) - cost(&one) - cost(&other);
        prop_assert!(difference.abs() <= 1, "{}", difference);
    }

    #[test]
    fn no_json_and_no_usage_panics(json in any_list(), usage in any_usage(u64::MAX), tier in any_tier()) {
        if let Ok(list) = parse(&json) {
            let table = PriceTable::build(1, &list, Some(&list), &BTreeMap::new());
            for view in table.views(None) {
                let cost = table.cost(&[&view.model], &usage, tier);
                prop_assert!(cost.total >= NanoUsd::ZERO);
                prop_assert_eq!(total(&usage, &cost.rates), cost.total);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_longer_prompt_never_costs_less(tokens in 0..600_000_u64, tier in any_tier()) {
        let table = shipped();
        for model in ["claude-haiku-5-5", "gpt-5.4", "gpt-5.6", "gemini-2.5-pro"] {
            let cost = |tokens| table.cost(&[model], &Usage::of(&[(Input, tokens)]), tier).total;
            prop_assert!(cost(tokens) <= cost(tokens + 1), "{}", model);
        }
    }
}
