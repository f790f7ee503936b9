//! `relayctl costs`: costs and counters computed anew from what single calls used.

use clap::{Args, Subcommand, ValueEnum};
use shared::costs::{AmountChange, CostsRebuilt, CounterChange, PricesFrom, RebuildCosts, SumChange};
use shared::domain::limit::Counted;

use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::output::{Grid, Look};
use crate::prompt::Bar;
use crate::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum CostsCommand {
    /// Compute costs, sums and counters anew from the rows of calls; shows what differs, and asks before it changes it
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// Only calls and hourly sums from this time on: a date, an RFC 3339 time, or a length ago (12h, 7d); counters are
    /// always compared in the whole windows that run now
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// The prices that each call was booked with, or those in force now
    #[arg(long, value_enum, default_value_t = PricesFlag::Booked)]
    prices: PricesFlag,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PricesFlag {
    Booked,
    Today,
}

impl From<PricesFlag> for PricesFrom {
    fn from(flag: PricesFlag) -> Self {
        match flag {
            PricesFlag::Booked => Self::Booked,
            PricesFlag::Today => Self::Today,
        }
    }
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: CostsCommand) -> Result<(), Failure> {
    match command {
        CostsCommand::Rebuild(args) => rebuild(ctl, args).await,
    }
}

/// What differs is shown before it is changed. What came meanwhile is in what is changed then.
async fn rebuild(ctl: &Ctl, args: RebuildArgs) -> Result<(), Failure> {
    let RebuildArgs { since, prices, dry_run } = args;
    let since = since.map(|since| since.past(ctl.out.now()));
    let look = RebuildCosts { since, prices: prices.into(), dry_run: true };
    let found = call(ctl, &look).await?;
    if dry_run || differs_in_nothing(&found) {
        return ctl.out.print(&found, differences);
    }
    ctl.out.show(&found, differences)?;
    ctl.prompt.confirm("put this right")?;
    let done = call(ctl, &RebuildCosts { dry_run: false, ..look }).await?;
    ctl.out.print(&done, |done, _| applied(done))
}

async fn call(ctl: &Ctl, call: &RebuildCosts) -> Result<CostsRebuilt, Failure> {
    let bar = Bar::new();
    Ok(ctl.client.call_long(call, |progress| bar.show(progress)).await?)
}

fn differs_in_nothing(report: &CostsRebuilt) -> bool {
    report.repriced == 0 && report.hours == 0 && report.counters.is_empty()
}

/// What differs, in sentences and tables.
fn differences(report: &CostsRebuilt, look: &Look) -> String {
    let mut parts = vec![summary(report)];
    if !report.sums.is_empty() {
        parts.push(sums(&report.sums, look));
    }
    if !report.counters.is_empty() {
        parts.push(counters(&report.counters, look));
    }
    if !report.left_alone.is_empty() {
        let lead = "left as they are, because rows and closing balances do not go back to their beginning:";
        parts.push(format!("{lead}\n\n{}", counters(&report.left_alone, look)));
    }
    parts.join("\n\n")
}

fn summary(report: &CostsRebuilt) -> String {
    let mut lines = vec![format!("{} were read", format::several(report.calls, "call"))];
    if report.repriced > 0 {
        let calls = format::several(report.repriced, "call");
        lines.push(format!("{calls} would cost {}", change(report.cost)));
        if report.rated != report.cost {
            lines.push(format!("their keys' holders would be charged {}", change(report.rated)));
        }
    }
    if report.without_price > 0 {
        let calls = format::several(report.without_price, "call");
        lines.push(format!("{calls} of models that have no price now would keep what they cost"));
    }
    if report.hours > 0 {
        lines.push(format!("{} would change", format::several(report.hours, "hourly sum")));
    }
    if let Some(from) = report.hours_from {
        lines.push(format!("sums of hours before {from} were not compared"));
    }
    if differs_in_nothing(report) {
        lines.push("nothing differs".to_owned());
    }
    lines.join("\n")
}

fn change(change: AmountChange) -> String {
    format!("{} instead of {}", format::dollars(change.after), format::dollars(change.before))
}

fn sums(sums: &[SumChange], look: &Look) -> String {
    let columns = ["key", "?>requests", "?>should be", ">cost", ">should be", "??>charged", "??>should be"];
    let mut grid = Grid::new(look, &columns);
    for sum in sums {
        let names = [sum.name.as_str().into()];
        let requests = [sum.requests.before, sum.requests.after].map(|number| format::count(number).into());
        let amounts = [sum.cost, sum.rated].into_iter().flat_map(|amount| [amount.before, amount.after]);
        let amounts = amounts.map(|amount| format::dollars(amount).into());
        grid.row(names.into_iter().chain(requests).chain(amounts));
    }
    grid.text()
}

fn counters(counters: &[CounterChange], look: &Look) -> String {
    let columns = ["whose", "name", "~counter", "?since", ">booked", ">should be"];
    let mut grid = Grid::new(look, &columns);
    for counter in counters {
        let amount = |amount: Counted| match amount {
            Counted::Money(amount) => format::dollars(amount),
            Counted::Number(number) => format::count(number),
        };
        let whose = counter.group.split(':').next().unwrap_or_default();
        let since = counter
            .starts_at
            .map_or_else(|| format::NOTHING.to_owned(), |start| format::seen_from(look.now, start));
        grid.row([
            whose.into(),
            counter.name.as_str().into(),
            counter.counter.as_str().into(),
            since.into(),
            amount(counter.before).into(),
            amount(counter.after).into(),
        ]);
    }
    grid.text()
}

fn applied(report: &CostsRebuilt) -> String {
    if !report.applied {
        return "nothing differs any more".to_owned();
    }
    format!(
        "put right: {}, {}, {}",
        format::several(report.repriced, "call"),
        format::several(report.hours, "hourly sum"),
        format::several(report.counters.len() as u64, "counter")
    )
}

#[cfg(test)]
mod tests {
    use shared::costs::CountChange;
    use shared::domain::NanoUsd;
    use shared::domain::Timestamp;
    use shared::domain::limit::Metric;

    use super::*;
    use crate::args::tests::parsed;
    use crate::output::tests::{PIPE, fits};

    fn amounts(before: i64, after: i64) -> AmountChange {
        AmountChange { before: NanoUsd::from_nanos(before), after: NanoUsd::from_nanos(after) }
    }

    fn report() -> CostsRebuilt {
        CostsRebuilt {
            applied: false,
            calls: 1_234,
            repriced: 0,
            without_price: 0,
            cost: amounts(0, 0),
            rated: amounts(0, 0),
            hours_from: None,
            hours: 0,
            sums: Vec::new(),
            counters: Vec::new(),
            left_alone: Vec::new(),
        }
    }

    fn counter(group: &str, name: &str, counter: &str) -> CounterChange {
        let metric = if counter.starts_with("cost ") { Metric::Cost } else { Metric::Requests };
        CounterChange {
            group: group.to_owned(),
            name: name.to_owned(),
            counter: counter.to_owned(),
            starts_at: (!counter.ends_with("in total")).then_some(PIPE.now),
            before: Counted::of(metric, 1_500_000_000),
            after: Counted::of(metric, 2_000_000_000),
        }
    }

    #[test]
    fn what_differs_is_told_line_by_line() {
        let text = differences(&report(), &PIPE);
        assert_eq!(text, "1,234 calls were read\nnothing differs");
        let (cost, rated) = (amounts(1_000_000_000, 2_500_000_000), amounts(2_000_000_000, 5_000_000_000));
        let sum = SumChange {
            id: Some("key_1".to_owned()),
            name: "alice".to_owned(),
            requests: CountChange { before: 12, after: 13 },
            cost,
            rated,
        };
        let report = CostsRebuilt {
            repriced: 7,
            without_price: 1,
            cost,
            rated,
            hours_from: Some(Timestamp::from_millis(0)),
            hours: 3,
            sums: vec![sum],
            counters: vec![counter("key:key_1", "alice", "cost per day")],
            left_alone: vec![counter("all", "all", "requests in total")],
            ..report()
        };
        let text = differences(&report, &PIPE);
        for part in [
            "7 calls would cost $2.50 instead of $1.00",
            "their keys' holders would be charged $5.00 instead of $2.00",
            "1 call of models that have no price now would keep what they cost",
            "3 hourly sums would change",
            "sums of hours before 1970-01-01T00:00:00Z were not compared",
            "alice        12         13  $1.00      $2.50    $2.00      $5.00",
            "key    alice  cost per day  just now   $1.50      $2.00",
            "all    all   requests in total  -      1,500,000,000  2,000,000,000",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        fits(|look| differences_tables(&report, look), &["alice"]);
    }

    fn differences_tables(report: &CostsRebuilt, look: &Look) -> String {
        format!("{}\n{}", sums(&report.sums, look), counters(&report.counters, look))
    }

    #[test]
    fn what_was_done_is_told() {
        assert_eq!(applied(&report()), "nothing differs any more");
        let report = CostsRebuilt { applied: true, repriced: 1, hours: 2, ..report() };
        assert_eq!(applied(&report), "put right: 1 call, 2 hourly sums, 0 counters");
    }

    #[test]
    fn prices_are_booked_or_todays() {
        let rebuild = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let command: Result<CostsCommand, clap::Error> = parsed(&words);
            command.map(|CostsCommand::Rebuild(args)| (args.prices, args.dry_run, args.since.is_some()))
        };
        assert_eq!(rebuild("costs rebuild").unwrap(), (PricesFlag::Booked, false, false));
        let line = "costs rebuild --prices today --since 7d --dry-run";
        assert_eq!(rebuild(line).unwrap(), (PricesFlag::Today, true, true));
        for line in ["costs rebuild --prices yesterday", "costs rebuild --since soon", "costs"] {
            assert!(rebuild(line).is_err(), "{line}");
        }
    }
}
