//! The figures for people, beside the goals, and for programs.

use std::fmt::Write as _;

use anyhow::Result;

use super::measure::{Figures, Subject};
use super::profile::Profile;

/// A line of the table.
struct Row {
    what: &'static str,
    direct: Option<f64>,
    floor: f64,
    relayd: f64,
    /// At most so many times the floor, or at most so much.
    goal: Option<Goal>,
}

#[derive(Clone, Copy)]
enum Goal {
    TimesFloor(f64),
    AtMost(f64),
}

fn rows(figures: &Figures) -> Vec<Row> {
    let Figures { direct, floor, relayd, .. } = figures;
    let row = |what, figure: fn(&Subject) -> f64, goal| Row {
        what,
        direct: None,
        floor: figure(floor),
        relayd: figure(relayd),
        goal,
    };
    let with_direct =
        |what, figure: fn(&Subject) -> f64| Row { direct: Some(figure(direct)), ..row(what, figure, None) };
    let added = |subject: &Subject| subject.p50_us - direct.p50_us;
    vec![
        row("CPU per request, µs", |subject| subject.request_cpu_us, Some(Goal::TimesFloor(1.8))),
        row("CPU per 50-chunk stream, µs", |subject| subject.stream_cpu_us, Some(Goal::TimesFloor(1.3))),
        row("CPU per request of 100 KB, µs", |subject| subject.body_100k_cpu_us, Some(Goal::TimesFloor(2.0))),
        row("CPU per request of 1 MB, µs", |subject| subject.body_1m_cpu_us, None),
        Row {
            what: "added p50 at one connection, µs",
            direct: None,
            floor: added(floor),
            relayd: added(relayd),
            goal: Some(Goal::TimesFloor(1.8)),
        },
        row("memory per idle stream, KiB", |subject| subject.stream_kib, None),
        row("idle memory, MiB", |subject| subject.idle_mib, Some(Goal::AtMost(16.0))),
        row("time to ready, s", |subject| subject.ready_s, Some(Goal::AtMost(0.2))),
        with_direct("p50 at one connection, µs", |subject| subject.p50_us),
        with_direct("p99 at 32 connections, µs", |subject| subject.p99_us),
        with_direct("requests per second", |subject| subject.requests_per_s),
    ]
}

/// A table in Markdown, and the profile under it.
pub fn table(figures: &Figures) -> String {
    let mut text =
        String::from("| | direct | floor | relayd | relayd / floor | goal |\n|---|--:|--:|--:|--:|---|\n");
    for row in rows(figures) {
        let direct = row.direct.map_or_else(String::new, number);
        let (floor, relayd) = (number(row.floor), number(row.relayd));
        let ratio = row.relayd / row.floor;
        let goal = row.goal.map_or_else(String::new, |goal| said(goal, ratio, row.relayd));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {direct} | {floor} | {relayd} | {ratio:.2} | {goal} |", row.what);
    }
    let place = figures.cores.map_or_else(
        || "on one core".to_owned(),
        |(measured, others)| {
            format!("the measured process on core {measured}, everything else on core {others}")
        },
    );
    let _ =
        writeln!(text, "\nmedians of 3 interleaved rounds, 32 connections where none are named; {place}\n");
    text.push_str(&profile(&figures.profile));
    text
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
        Goal::TimesFloor(most) => (format!("<= {most:.1}x"), ratio <= most),
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
