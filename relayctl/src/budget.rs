//! `relayctl limit` and `relayctl events`: limits that keys share, and how far limits are used.

use clap::{ArgGroup, Args, Subcommand};
use shared::admin::{BudgetEvent, LimitHolder, LimitsView, ListEvents, ListLimits, SetLimits};
use shared::domain::Limit;

use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::limits;
use crate::output::{Cell, Grid, Look, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum LimitCommand {
    /// All limits that keys share, and how far they are used
    List,
    /// Give keys limits that they share, in place of those that they shared before
    Set {
        #[command(flatten)]
        holder: HolderArgs,
        /// What they may use together: "$200 per month", "20 concurrent" (repeatable)
        #[arg(long = "limit", value_name = "LIMIT", required = true)]
        limits: Vec<Limit>,
    },
    /// Take away all limits that an owner's keys share, or all keys
    Clear {
        #[command(flatten)]
        holder: HolderArgs,
    },
}

/// Who shares limits.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("holder").required(true))]
pub(crate) struct HolderArgs {
    /// The keys with this owner, all together
    #[arg(long, group = "holder", value_name = "NAME", value_parser = args::text)]
    owner: Option<String>,
    /// All keys together, whoever owns them; what an owner's keys share is not meant
    #[arg(long, group = "holder")]
    all: bool,
}

impl HolderArgs {
    fn holder(self) -> LimitHolder {
        self.owner.map_or(LimitHolder::All, LimitHolder::Owner)
    }
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// At most so many events [default: 100]
    #[arg(long, value_name = "EVENTS", value_parser = args::number::<u32>(1, 1_000))]
    limit: Option<u32>,
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: LimitCommand) -> Result<(), Failure> {
    let (client, out) = (&ctl.client, &ctl.out);
    match command {
        LimitCommand::List => out.print(&*client.call(&ListLimits {}).await?, table),
        LimitCommand::Set { holder, limits } => {
            let call = SetLimits { holder: holder.holder(), limits };
            out.print(&client.call(&call).await?, record)
        }
        LimitCommand::Clear { holder } => {
            let holder = holder.holder();
            let shared = client.call(&ListLimits {}).await?;
            if !shared.iter().any(|view| view.holder == holder) {
                return Err(Failure::bad_news(
                    format!("{} share no limits", keys_of(&holder)),
                    "`relayctl limit list` shows all limits that keys share",
                ));
            }
            ctl.prompt.confirm(&format!("take away the limits that {} share", keys_of(&holder)))?;
            let call = SetLimits { holder, limits: Vec::new() };
            out.print(&client.call(&call).await?, cleared)
        }
    }
}

/// Shows how far limits came to be used.
pub(crate) async fn events(ctl: &Ctl, args: EventsArgs) -> Result<(), Failure> {
    let call = ListEvents { limit: args.limit };
    ctl.out.print(&*ctl.client.call(&call).await?, events_table)
}

fn keys_of(holder: &LimitHolder) -> String {
    match holder {
        LimitHolder::Owner(owner) => format!("the keys of owner {owner}"),
        LimitHolder::All => "all keys".to_owned(),
    }
}

fn name(holder: &LimitHolder) -> String {
    match holder {
        LimitHolder::Owner(owner) => format!("owner {owner}"),
        LimitHolder::All => "all keys".to_owned(),
    }
}

fn table(views: &[LimitsView], look: &Look) -> String {
    if views.is_empty() {
        return "keys share no limits; `relayctl limit set` gives them some".to_owned();
    }
    let mut grid = Grid::new(look, &["~of", "?>keys", "~limit", "~standing"]);
    for view in views {
        for limit in &view.limits {
            grid.row([
                name(&view.holder).into(),
                format::count(view.keys).into(),
                limit.limit.to_string().into(),
                limits::used(limit, look),
            ]);
        }
    }
    grid.text()
}

fn record(view: &LimitsView, look: &Look) -> String {
    let mut grid = Grid::bare(look);
    grid.pair("of", name(&view.holder)).pair("keys", format::count(view.keys));
    limits::add_rows(&mut grid, &view.limits, look);
    grid.text()
}

fn cleared(view: &LimitsView, _: &Look) -> String {
    format::plain(&format!("{} share no limits any more", keys_of(&view.holder)))
}

fn events_table(events: &[BudgetEvent], look: &Look) -> String {
    if events.is_empty() {
        return "since its start relayd saw no limit used to the half".to_owned();
    }
    let mut grid = Grid::new(look, &["when", "?of", "name", "~limit", ">reached", "??>used", "???resets"]);
    for event in events {
        let tone = if event.percent >= 100 { Tone::Bad } else { Tone::Warning };
        grid.row([
            look.ago(event.at).into(),
            event.holder.as_str().into(),
            event.name.as_str().into(),
            event.limit.to_string().into(),
            Cell::toned(format!("{} %", event.percent), tone),
            limits::amount_of(event.limit.metric, event.used).into(),
            event.resets_at.map_or_else(|| NOTHING.to_owned(), |at| format::seen_from(look.now, at)).into(),
        ]);
    }
    grid.text()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::admin::LimitView;

    use super::*;
    use crate::output::tests::{PIPE, fits};

    fn view(holder: LimitHolder, limits: &[&str]) -> LimitsView {
        let resets_at = Some(PIPE.now.after(Duration::from_secs(3_600)));
        let limit =
            |text: &&str| LimitView { limit: text.parse().unwrap(), used: 1_500_000_000, held: 0, resets_at };
        LimitsView { holder, limits: limits.iter().map(limit).collect(), keys: 3 }
    }

    #[test]
    fn shared_limits_are_shown_with_their_standing() {
        let owner = LimitHolder::Owner("Alice".to_owned());
        let views = [view(LimitHolder::All, &["$20 per day"]), view(owner, &["$5 per week", "$9 in total"])];
        let text = table(&views, &PIPE);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("owner Alice") && text.contains("$1.50 used"), "{text}");
        let team = LimitHolder::Owner("platform-engineering".to_owned());
        let long = [view(team, &["$500 per month from day 15 at 06:00 in Europe/Berlin on claude-opus-*"])];
        fits(|look| table(&long, look), &["claude-opus-*", "Europe/Berlin"]);
        assert!(table(&[], &PIPE).contains("limit set"));
        assert!(cleared(&view(LimitHolder::All, &[]), &PIPE).contains("share no limits any more"));
    }

    #[test]
    fn events_say_what_is_used_up() {
        let event = BudgetEvent {
            at: PIPE.now,
            holder: "key".to_owned(),
            id: Some("key_1".to_owned()),
            name: "alice".to_owned(),
            limit: "$20 per day".parse().unwrap(),
            percent: 80,
            used: 16_100_000_000,
            resets_at: None,
        };
        let long = BudgetEvent {
            name: "platform-engineering".to_owned(),
            limit: "$500 per month from day 15 at 06:00 in Europe/Berlin on claude-opus-*".parse().unwrap(),
            resets_at: Some(PIPE.now.after(Duration::from_secs(3_600))),
            ..event.clone()
        };
        fits(
            |look| events_table(std::slice::from_ref(&long), look),
            &["platform-engineering", "Europe/Berlin"],
        );
        let text = events_table(&[event], &PIPE);
        assert!(text.contains("80 %") && text.contains("$16.10") && text.contains("alice"), "{text}");
        assert!(events_table(&[], &PIPE).contains("no limit"));
    }
}
