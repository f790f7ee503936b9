//! `relayctl usage` and `relayctl requests`: what was used and what it cost, summed and row by row.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use shared::admin::{ListRequests, RequestRow, SumUsage, UsageBy, UsageRow};
use shared::domain::usage::UsageClass;
use shared::domain::{NanoUsd, Provenance, RequestId, Timestamp, Usage};

use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::output::{Cell, Grid, Look, Tone};
use crate::when::When;

/// Sums over less than this are noticeably wrong where the first hour is counted whole.
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// What a row stands for; days are those of limits.zone
    #[arg(long, value_enum, default_value_t = ByFlag::Key)]
    by: ByFlag,
    #[command(flatten)]
    span: SpanArgs,
    /// Only this key (id or name), also one that is deleted
    #[arg(long)]
    key: Option<String>,
    /// Only this account (id or name), also one that was removed
    #[arg(long)]
    account: Option<String>,
    /// Only this model
    #[arg(long)]
    model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ByFlag {
    Key,
    Account,
    Model,
    Day,
}

impl From<ByFlag> for UsageBy {
    fn from(flag: ByFlag) -> Self {
        match flag {
            ByFlag::Key => Self::Key,
            ByFlag::Account => Self::Account,
            ByFlag::Model => Self::Model,
            ByFlag::Day => Self::Day,
        }
    }
}

/// A span of time.
#[derive(Debug, Args)]
pub(crate) struct SpanArgs {
    /// From this time on: a date, an RFC 3339 time, or a length ago (12h, 7d); `usage` counts whole hours
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
}

/// Its ends.
struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl SpanArgs {
    fn at(self, now: Timestamp) -> Result<Span, Failure> {
        let [since, until] = [self.since, self.until].map(|end| end.map(|end| end.past(now)));
        match (since, until) {
            (Some(since), Some(until)) if since >= until => Err(Failure::usage(
                format!("--since is {since}, which is not before --until, {until}"),
                "exchange them; a length such as 7d is counted back from now",
            )),
            (since, until) => Ok(Span { since, until }),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RequestsArgs {
    /// Only this request
    #[arg(long)]
    id: Option<RequestId>,
    /// Only this key (id or name), also one that is deleted
    #[arg(long)]
    key: Option<String>,
    /// Only this account (id or name), also one that was removed
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    span: SpanArgs,
    /// Only requests older than this one: for the next page
    #[arg(long, value_name = "ID")]
    before: Option<RequestId>,
    /// At most so many rows [default: 100]
    #[arg(long, value_name = "ROWS", value_parser = args::number::<u32>(1, 10_000))]
    limit: Option<u32>,
}

/// Shows sums of usage.
pub(crate) async fn sum(ctl: &Ctl, args: UsageArgs) -> Result<(), Failure> {
    let (by, now) = (args.by, ctl.out.now());
    let Span { since, until } = args.span.at(now)?;
    if since.is_some_and(|since| until.unwrap_or(now).since(since) < DAY && since.hour() != since) {
        ctl.out.remark("whole hours are counted: what came earlier in the first one is in these sums, too");
    }
    let call =
        SumUsage { by: by.into(), since, until, key: args.key, account: args.account, model: args.model };
    ctl.out.print(&*ctl.client.call(&call).await?, |rows, look| sums(rows, by, look))
}

/// Shows single requests.
pub(crate) async fn requests(ctl: &Ctl, args: RequestsArgs) -> Result<(), Failure> {
    let Span { since, until } = args.span.at(ctl.out.now())?;
    let call = ListRequests {
        id: args.id,
        key: args.key,
        account: args.account,
        since,
        until,
        before: args.before,
        limit: args.limit,
    };
    let rows = ctl.client.call(&call).await?;
    if let Some(id) = call.id.filter(|_| rows.is_empty()) {
        return Err(Failure::bad_news(
            format!("there is no row of {id}"),
            "calls that are refused before an account is asked have none, nor have token counts",
        ));
    }
    ctl.out.print(&*rows, row_by_row)
}

fn sums(rows: &[UsageRow], by: ByFlag, look: &Look) -> String {
    if rows.is_empty() {
        return "nothing was used in this time".to_owned();
    }
    let name = match by {
        ByFlag::Key => "key",
        ByFlag::Account => "account",
        ByFlag::Model => "model",
        ByFlag::Day => "day",
    };
    let columns = [
        name,
        ">requests",
        "?>failed",
        "??>input",
        "???>cache read",
        "????>cache write",
        "??>output",
        ">cost",
        "?>unpriced",
        "?????~numbers",
    ];
    let mut grid = Grid::new(look, &columns);
    for row in rows {
        grid.row(sum_cells(row));
    }
    if rows.len() > 1 {
        grid.row(sum_cells(&total(rows)));
    }
    grid.text()
}

fn sum_cells(row: &UsageRow) -> [Cell; 10] {
    let usage = &row.usage;
    let toned = |number: u64, tone| match number {
        0 => Cell::from("0"),
        _ => Cell::toned(format::count(number), tone),
    };
    [
        row.name.as_str().into(),
        format::count(row.requests).into(),
        toned(row.failed, Tone::Bad),
        format::count(inputs(usage)).into(),
        format::count(usage[UsageClass::CacheRead]).into(),
        format::count(cache_writes(usage)).into(),
        format::count(usage.answer_tokens()).into(),
        format::dollars(row.cost).into(),
        toned(row.unpriced, Tone::Warning),
        numbers(&row.provenance).into(),
    ]
}

/// Prompt tokens that no cache had a part in.
fn inputs(usage: &Usage) -> u64 {
    usage[UsageClass::Input].saturating_add(usage[UsageClass::InputAudio])
}

fn cache_writes(usage: &Usage) -> u64 {
    usage[UsageClass::CacheWrite5m].saturating_add(usage[UsageClass::CacheWrite1h])
}

/// Where the numbers come from: `measured` alone says so, everything else is counted.
fn numbers(provenance: &BTreeMap<Provenance, u64>) -> String {
    let counts = Provenance::ALL.into_iter().filter_map(|source| {
        let count = provenance.get(&source).copied().filter(|&count| count > 0)?;
        Some((source, count))
    });
    match counts.collect::<Vec<_>>().as_slice() {
        [(only, _)] => only.name().to_owned(),
        counts => {
            let counts: Vec<_> = counts
                .iter()
                .map(|(source, count)| format!("{} {}", format::count(*count), source.name()))
                .collect();
            format::list(&counts, NOTHING)
        }
    }
}

fn total(rows: &[UsageRow]) -> UsageRow {
    let sum = |number: fn(&UsageRow) -> u64| rows.iter().map(number).fold(0, u64::saturating_add);
    let (mut usage, mut provenance) = (Usage::default(), BTreeMap::new());
    for row in rows {
        usage += row.usage;
        for (&source, &count) in &row.provenance {
            let sum: &mut u64 = provenance.entry(source).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    UsageRow {
        name: "total".to_owned(),
        id: None,
        requests: sum(|row| row.requests),
        failed: sum(|row| row.failed),
        usage,
        cost: rows.iter().map(|row| row.cost).sum::<NanoUsd>(),
        rated: rows.iter().map(|row| row.rated).sum::<NanoUsd>(),
        unpriced: sum(|row| row.unpriced),
        provenance,
    }
}

fn row_by_row(rows: &[RequestRow], look: &Look) -> String {
    if rows.is_empty() {
        return "no such requests".to_owned();
    }
    let columns = [
        "request",
        "opened",
        "?key",
        "????account",
        "???~model",
        ">status",
        "?????~end",
        "?????>tokens in",
        "?????>out",
        "??>cost",
        "??????>first byte",
        "??????>total",
    ];
    let mut grid = Grid::new(look, &columns);
    for row in rows {
        grid.row(row_cells(row, look));
    }
    grid.text()
}

fn row_cells(row: &RequestRow, look: &Look) -> [Cell; 12] {
    [
        row.id.to_string().into(),
        look.ago(row.opened_at).into(),
        row.key_name.as_str().into(),
        row.account_name.as_deref().unwrap_or(NOTHING).into(),
        model(row).into(),
        Cell::toned(row.status.to_string(), if row.status < 400 { Tone::Good } else { Tone::Bad }),
        end(row),
        format::count(row.usage.prompt_tokens()).into(),
        format::count(row.usage.answer_tokens()).into(),
        format::cost(row.cost, row.unpriced).into(),
        row.first_byte_ms.map_or_else(|| NOTHING.to_owned(), format::millis).into(),
        taken(row).into(),
    ]
}

/// The time that it took, and how much of that it waited for room or for its turn.
fn taken(row: &RequestRow) -> String {
    match row.queued_ms {
        0 => format::millis(row.total_ms),
        queued_ms => format!("{} ({} queued)", format::millis(row.total_ms), format::millis(queued_ms)),
    }
}

/// How it ended, and where its numbers come from unless the upstream gave them.
fn end(row: &RequestRow) -> Cell {
    let tone = if row.end == "complete" { Tone::Neutral } else { Tone::Warning };
    match row.provenance {
        Provenance::Measured => Cell::toned(row.end.as_str(), tone),
        other if other.name() == row.end => Cell::toned(row.end.as_str(), tone),
        other => Cell::toned(format!("{}, {}", row.end, other.name()), tone),
    }
}

/// The model that was asked for, and the one that was priced where that is another.
fn model(row: &RequestRow) -> String {
    match &row.priced_model {
        Some(priced) if *priced != row.model => format!("{} ({priced})", row.model),
        _ => row.model.clone(),
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::{Multiplier, Operation, Protocol};

    use super::*;
    use crate::output::tests::{PIPE, fits};

    fn sum_row(name: &str, requests: u64, source: Provenance) -> UsageRow {
        UsageRow {
            name: name.to_owned(),
            id: None,
            requests,
            failed: 1,
            usage: Usage::of(&[
                (UsageClass::Input, 1_000),
                (UsageClass::CacheWrite5m, 20),
                (UsageClass::CacheWrite1h, 3),
                (UsageClass::Output, 50),
            ]),
            cost: NanoUsd::from_nanos(1_500_000_000),
            rated: NanoUsd::from_nanos(1_500_000_000),
            unpriced: 0,
            provenance: BTreeMap::from([(source, requests)]),
        }
    }

    #[test]
    fn sums_end_with_their_total() {
        let rows = [sum_row("alice", 1_200, Provenance::Measured), sum_row("bob", 3, Provenance::Estimated)];
        let text = sums(&rows, ByFlag::Key, &PIPE);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[0][..3], ["KEY", "REQUESTS", "FAILED"]);
        assert_eq!(lines[1], ["alice", "1,200", "1", "1,000", "0", "23", "50", "$1.50", "0", "measured"]);
        assert_eq!(lines[3][..8], ["total", "1,203", "2", "2,000", "0", "46", "100", "$3.00"]);
        assert!(text.ends_with("1,200 measured, 3 estimated"), "{text}");
        assert_eq!(sums(&rows[..1], ByFlag::Key, &PIPE).lines().count(), 2);
        let long = [sum_row("a-team-with-a-long-name", 1_234_567, Provenance::Measured)];
        fits(|look| sums(&long, ByFlag::Key, look), &["a-team-with-a-long-name", "1,234,567", "$1.50"]);
    }

    #[test]
    fn requests_are_shown_by_name() {
        let row = RequestRow {
            id: RequestId::from_u128(u128::MAX),
            opened_at: Timestamp::from_millis(PIPE.now.as_millis() - 180_000),
            first_byte_ms: Some(40),
            total_ms: 1_450,
            queued_ms: 900,
            key: "key_1".into(),
            key_name: "alice".to_owned(),
            account: Some("acc_1".into()),
            account_name: Some("main".to_owned()),
            protocol: Protocol::Messages,
            operation: Operation::Generate,
            model: "fast".to_owned(),
            priced_model: Some("claude-haiku-4-5".to_owned()),
            status: 200,
            end: "complete".to_owned(),
            attempts: 1,
            usage: Usage::of(&[(UsageClass::Input, 12), (UsageClass::Output, 34)]),
            provenance: Provenance::Estimated,
            cost: NanoUsd::ZERO,
            rated: NanoUsd::ZERO,
            unpriced: true,
            prices: BTreeMap::new(),
            price_version: 1,
            multiplier: Multiplier::ONE,
        };
        let rows = [row];
        fits(|look| row_by_row(&rows, look), &["req_ffffffffffffffffffffffffffffffff", "200"]);
        let text = row_by_row(&rows, &PIPE);
        for part in [
            "3 min ago",
            "alice",
            "main",
            "fast (claude-haiku-4-5)",
            "complete, estimated",
            "no price",
            "1.4 s (900 ms queued)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
