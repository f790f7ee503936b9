//! The figures for people, beside the goals, and for programs.

use std::fmt::Write as _;

use anyhow::Result;

use super::measure::{Figures, Rounds, Subject};
use super::profile::Profile;

/// A line of the table.
struct Row {
    what: &'static str,
    direct: Option<f64>,
    floor: f64,
    relayd: f64,
    ratio: f64,
    goal: Option<Goal>,
}

/// At most so many times the other, or at most so much.
#[derive(Clone, Copy)]
enum Goal {
    Times(f64),
    AtMost(f64),
}

type Figure = fn(&Subject) -> f64;

fn row(what: &'static str, (floor, relayd): (&Rounds, &Rounds), figure: Figure, goal: Option<Goal>) -> Row {
    Row {
        what,
        direct: None,
        floor: floor.median(figure),
        relayd: relayd.median(figure),
        ratio: relayd.ratio_to(floor, figure),
        goal,
    }
}

fn rows(figures: &Figures) -> Vec<Row> {
    let Figures { direct, floor, relayd, floor_starts, relayd_starts, .. } = figures;
    let (loads, starts) = ((floor, relayd), (floor_starts, relayd_starts));
    let times = |most| Some(Goal::Times(most));
    let with_direct =
        |what, figure: Figure| Row { direct: Some(direct.median(figure)), ..row(what, loads, figure, None) };
    let added = (&added(floor, direct), &added(relayd, direct));
    vec![
        row("CPU per request, µs", loads, |subject| subject.request_cpu_us, times(1.8)),
        row("CPU per 50-chunk stream, µs", loads, |subject| subject.stream_cpu_us, times(1.3)),
        row("CPU per request of 100 KB, µs", loads, |subject| subject.body_100k_cpu_us, times(2.0)),
        row("CPU per request of 1 MB, µs", loads, |subject| subject.body_1m_cpu_us, None),
        row("added p50 at one connection, µs", added, |subject| subject.p50_us, times(1.8)),
        row("memory per idle stream, KiB", starts, |subject| subject.stream_kib, None),
        row("idle memory, MiB", starts, |subject| subject.idle_mib, Some(Goal::AtMost(16.0))),
        row("time to ready, s", starts, |subject| subject.ready_s, Some(Goal::AtMost(0.2))),
        with_direct("p50 at one connection, µs", |subject| subject.p50_us),
        with_direct("p99 at 32 connections, µs", |subject| subject.p99_us),
        with_direct("requests per second", |subject| subject.requests_per_s),
    ]
}

/// What a subject adds to the latency of a direct call of the same round.
fn added(subject: &Rounds, direct: &Rounds) -> Rounds {
    let rounds = subject.0.iter().zip(&direct.0);
    Rounds(rounds.map(|(own, direct)| Subject { p50_us: own.p50_us - direct.p50_us, ..*own }).collect())
}

/// Tables in Markdown, and the profile under them.
pub fn table(figures: &Figures) -> String {
    let mut text =
        String::from("| | direct | floor | relayd | relayd / floor | goal |\n|---|--:|--:|--:|--:|---|\n");
    for row in rows(figures) {
        let direct = row.direct.map_or_else(String::new, number);
        let (floor, relayd) = (number(row.floor), number(row.relayd));
        let goal = row.goal.map_or_else(String::new, |goal| said(goal, row.ratio, row.relayd));
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "| {} | {direct} | {floor} | {relayd} | {:.2} | {goal} |", row.what, row.ratio);
    }
    text.push_str("\n| | relayd | so | ratio | goal |\n|---|--:|--:|--:|---|\n");
    for row in variants(figures) {
        let (relayd, so) = (number(row.floor), number(row.relayd));
        let goal = row.goal.map_or_else(String::new, |goal| said(goal, row.ratio, row.relayd));
        let _ = writeln!(text, "| {} | {relayd} | {so} | {:.2} | {goal} |", row.what, row.ratio);
    }
    let place = figures.cores.map_or_else(
        || "on one core".to_owned(),
        |(measured, others)| {
            format!("the measured process on core {measured}, everything else on core {others}")
        },
    );
    let rounds = figures.relayd.0.len();
    let _ = writeln!(
        text,
        "\nmedians of {rounds} interleaved rounds, ratios within a round, 32 connections where none are named; {place}\n"
    );
    text.push_str(&profile(&figures.profile));
    text
}

/// relayd with many keys and accounts, and on Redis, beside relayd as it is.
fn variants(figures: &Figures) -> Vec<Row> {
    let Figures { relayd, crowded, on_redis, relayd_starts, crowded_ready_s, .. } = figures;
    let request: Figure = |subject| subject.request_cpu_us;
    let stream: Figure = |subject| subject.stream_cpu_us;
    let ready = relayd_starts.median(|subject| subject.ready_s);
    let mut rows = vec![
        row(
            "10,000 keys, 1,000 accounts: CPU per request, µs",
            (relayd, crowded),
            request,
            Some(Goal::Times(1.1)),
        ),
        Row {
            what: "10,000 keys, 1,000 accounts: time to ready, s",
            direct: None,
            floor: ready,
            relayd: *crowded_ready_s,
            ratio: crowded_ready_s / ready,
            goal: Some(Goal::AtMost(1.0)),
        },
    ];
    if let Some(on_redis) = on_redis {
        rows.push(row("on Redis: CPU per request, µs", (relayd, on_redis), request, Some(Goal::Times(1.35))));
        rows.push(row("on Redis: CPU per 50-chunk stream, µs", (relayd, on_redis), stream, None));
        rows.push(row(
            "on Redis: p50 at one connection, µs",
            (relayd, on_redis),
            |subject| subject.p50_us,
            None,
        ));
    }
    rows
}

fn number(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1_000.0 => format!("{figure:.0}"),
        size if size >= 1.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}"),
    }
}

fn said(goal: Goal, ratio: f64, figure: f64) -> String {
    let (text, is_met) = match goal {
        Goal::Times(most) => (format!("<= {most:.1}x"), ratio <= most),
        Goal::AtMost(most) => (format!("<= {most}"), figure <= most),
    };
    format!("{text} {}", if is_met { "met" } else { "**missed**" })
}

fn profile(profile: &Profile) -> String {
    let shares = match profile {
        Profile::LeftOut(reason) => return format!("where the CPU goes: left out, {reason}"),
        Profile::Shares(shares) => shares,
    };
    let mut text = String::from("where relayd's CPU goes (small requests, 32 connections):\n");
    for (module, share) in shares {
        let _ = writeln!(text, "{share:6.1} %  {module}");
    }
    text
}

/// Everything as one JSON object.
pub fn json(figures: &Figures) -> Result<String> {
    Ok(serde_json::to_string_pretty(figures)?)
}
