//! The text form, both ways.

use std::time::Duration;

use jiff::civil::Weekday;
use proptest::prelude::*;

use super::{Calendar, CalendarUnit, Limit, Metric, TimeOfDay, Window, Zone};
use crate::domain::{Glob, Operation};

#[test]
fn limits_parse_and_print() {
    for (text, printed) in [
        ("4 concurrent", "4 concurrent"),
        ("4 concurrent requests", "4 concurrent"),
        ("4 concurrent calls on claude-opus-*", "4 concurrent on claude-opus-*"),
        ("60 requests per minute", "60 requests per minute"),
        ("60 Requests  PER 60 seconds", "60 requests per minute"),
        ("1 request per 90 seconds", "1 request per 90 seconds"),
        ("100k tokens per hour", "100000 tokens per hour"),
        ("2M tokens per 5 hours strict", "2000000 tokens per 5 hours strict"),
        ("1 token per 1 day", "1 token per 24 hours"),
        ("500 requests per 1 week", "500 requests per 7 days"),
        ("500 requests per 2 weeks", "500 requests per 2 weeks"),
        ("100 requests in total", "100 requests in total"),
        ("$20 per day", "$20 per day"),
        ("20 dollars per day", "$20 per day"),
        ("$0.000000001 per calendar day", "$0.000000001 per day"),
        ("$0.50 per calendar hour in Asia/Kolkata", "$0.50 per calendar hour in Asia/Kolkata"),
        ("$20 per day at 6 in europe/berlin", "$20 per day at 06:00 in Europe/Berlin"),
        ("$20 per day in utc at 00:00", "$20 per day in UTC"),
        ("$80 per week on claude-opus-*", "$80 per week on claude-opus-*"),
        ("$80 per week from monday", "$80 per week"),
        (
            "$80 per week from SUNDAY at 04:30 on claude-opus-*,claude-sonnet-* strict",
            "$80 per week from Sunday at 04:30 on claude-opus-*, claude-sonnet-* strict",
        ),
        ("$500 per month from day 31", "$500 per month from day 31"),
        ("$500 per month from day 1 for embed, generate", "$500 per month for embed, generate"),
        ("$500 in total strict on gpt-5", "$500 in total on gpt-5 strict"),
    ] {
        let limit = text.parse::<Limit>().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(limit.to_string(), printed);
        assert_eq!(printed.parse::<Limit>().unwrap(), limit);
    }
}

#[test]
fn mistakes_are_named() {
    for (text, part) in [
        ("", "written like"),
        ("5", "written like"),
        ("20 per day", "written like"),
        ("many requests per day", "whole number"),
        ("0 requests per day", "whole number"),
        ("-3 concurrent", "whole number"),
        ("+3 concurrent", "whole number"),
        ("1.5k tokens per day", "whole number"),
        ("$0 per day", "whole number"),
        ("$-1 per day", "whole number"),
        ("$0.0000000001 per day", "whole number"),
        ("99999999999b tokens per day", "at most 9223372036854775807"),
        ("5 apples per day", "\"apples\""),
        ("5 requests", "over which time"),
        ("5 requests in all", "over which time"),
        ("5 requests per", "over which time"),
        ("5 requests each day", "over which time"),
        ("5 requests per fortnight", "\"fortnight\""),
        ("5 requests per calendar minute", "\"minute\""),
        ("5 requests per 2 months", "no fixed length"),
        ("5 requests per months", "no fixed length"),
        ("5 requests per 0 hours", "whole number of seconds"),
        ("5 requests per 99999999999 weeks", "whole number of seconds"),
        ("5 concurrent per day", "\"per\""),
        ("5 concurrent at 06:00", "\"at\" goes with"),
        ("5 requests per hour in UTC", "\"in\" goes with"),
        ("5 requests per calendar hour at 06:00", "\"at\" goes with"),
        ("5 requests per day from Monday", "\"from\" goes with"),
        ("5 requests per week from Mond", "\"Mond\""),
        ("5 requests per month from 15", "\"15\""),
        ("5 requests per month from day 32", "\"32\""),
        ("5 requests per day at 24:00", "06:00"),
        ("5 requests per day at", "06:00"),
        ("5 requests per day at 6 at 7", "twice"),
        ("5 requests per week from Monday from Monday", "twice"),
        ("5 requests per day in Mars/Base", "\"Mars/Base\""),
        ("5 requests per day in +02:00", "time zone"),
        ("5 requests per day in", "time zone"),
        ("5 requests per day on", "name the models"),
        ("5 requests per day on , strict", "name the models"),
        ("5 requests per day on a on b", "twice"),
        ("5 requests per day for count_tokens", "\"count_tokens\""),
        ("5 requests per day for", "for generate"),
        ("5 requests per day strict", "counted exactly"),
        ("$5 per day strict strict", "twice"),
        ("$5 per day please", "\"please\""),
    ] {
        let error = text.parse::<Limit>().expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

/// What is wrong is named, and not what would be right elsewhere.
#[test]
fn mistakes_have_their_own_sentence() {
    for (text, part) in [
        ("$20 per month from Monday", "a month begins \"from day 15\""),
        ("$20 per week from day 3", "a week begins \"from Monday\""),
        ("4 concurrent per minute", "counted over no time"),
        ("4 concurrent calls per day", "counted over no time"),
        ("60 requests per 1 month", "write \"per month\""),
        ("999999999999999999999 tokens per day", "at most 9223372036854775807"),
        ("10000000000000m tokens per day", "at most 9223372036854775807"),
        ("$99999999999 per day", "$9223372036.85"),
        ("5 requests per 200 years", "seconds, minutes, hours, days, weeks or months"),
        ("5 requests per 49711 days", "at most 49710 days"),
    ] {
        let error = text.parse::<Limit>().expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn counters_have_the_name_of_what_they_count() {
    for (text, name) in [
        ("4 concurrent", "concurrent"),
        ("1 request per minute", "requests per minute"),
        ("9 requests per minute", "requests per minute"),
        ("$20 per day strict", "cost per day"),
        ("$21 per day in UTC on a*, b", "cost per day in UTC on a*, b"),
        ("2k tokens in total for embed", "tokens in total for embed"),
    ] {
        assert_eq!(text.parse::<Limit>().unwrap().counter_name(), name);
    }
}

#[test]
fn a_limit_covers_its_models_and_operations() {
    for (text, model, operation, expected) in [
        ("$1 per day", "gpt-5", Operation::Embed, true),
        ("$1 per day on claude-*", "gpt-5", Operation::Generate, false),
        ("$1 per day on claude-*, gpt-*", "gpt-5", Operation::Generate, true),
        ("$1 per day for embed", "gpt-5", Operation::Generate, false),
        ("$1 per day on gpt-* for embed", "gpt-5", Operation::Embed, true),
    ] {
        assert_eq!(text.parse::<Limit>().unwrap().covers(model, operation), expected, "{text}");
    }
    let limit = |text: &str| text.parse::<Limit>().unwrap();
    assert!(limit("$1 per day").counts_like(&limit("$2 per day strict")));
    assert!(!limit("$1 per day").counts_like(&limit("$1 per day in UTC")));
}

fn calendar() -> impl Strategy<Value = Window> {
    let unit = prop_oneof![
        Just(CalendarUnit::Hour),
        Just(CalendarUnit::Day),
        (1..=7_i8).prop_map(|day| CalendarUnit::Week(Weekday::from_monday_one_offset(day).unwrap())),
        (1..=31_i8).prop_map(CalendarUnit::Month),
    ];
    let zone = prop::option::of(prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kathmandu"]));
    (unit, 0..24_i8, 0..60_i8, zone).prop_map(|(unit, hour, minute, zone)| {
        let at = if unit == CalendarUnit::Hour { TimeOfDay::default() } else { TimeOfDay { hour, minute } };
        Window::Calendar(Calendar { unit, at, zone: zone.map(|zone| zone.parse::<Zone>().unwrap()) })
    })
}

fn limit() -> impl Strategy<Value = Limit> {
    let window = prop_oneof![
        Just(Window::Lifetime),
        (1..=u64::from(u32::MAX)).prop_map(|seconds| Window::Fixed(Duration::from_secs(seconds))),
        calendar(),
    ];
    let models = prop::collection::vec(prop::sample::select(vec!["claude-*", "gpt-5.1", "*"]), 0..3);
    let operations =
        prop::collection::vec(prop::sample::select(vec![Operation::Generate, Operation::Embed]), 0..2);
    let metric = prop::sample::select(Metric::ALL.to_vec());
    (metric, 1..=i64::MAX as u64, window, models, operations, any::<bool>()).prop_map(
        |(metric, amount, window, models, operations, strict)| Limit {
            metric,
            amount,
            window: if metric == Metric::Concurrent { Window::Now } else { window },
            models: models.into_iter().map(Glob::from).collect(),
            operations,
            is_strict: strict && !metric.is_exact(),
        },
    )
}

proptest! {
    #[test]
    fn every_limit_prints_what_parses_to_it(limit in limit()) {
        let text = limit.to_string();
        prop_assert_eq!(text.parse::<Limit>().unwrap(), limit);
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = text.parse::<Limit>();
    }

    #[test]
    fn no_words_panic(words in prop::collection::vec(prop::sample::select(
        vec!["$5", "5", "k", "requests", "tokens", "per", "day", "week", "month", "2", "hours", "from", "at", "in",
             "total", "on", "a,b", "for", "embed", "strict", "calendar", "Sunday", "06:00", "UTC", "concurrent"]), 0..12)) {
        if let Ok(limit) = words.join(" ").parse::<Limit>() {
            prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
        }
    }
}
