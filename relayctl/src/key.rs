//! `relayctl key`: who may call what, until when, how much.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use shared::admin::{BoundAccount, CreateKey, CreatedKey, DeleteKey, KeyView, ListKeys, ShowKey, UpdateKey};
use shared::domain::key::UsageMode;
use shared::domain::{Family, Glob, KeyQueue, Limit, Multiplier, OnDisconnect, Timestamp};

use crate::args::{self, replaced};
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format::{self, NOTHING};
use crate::limits::{self, LimitArgs};
use crate::output::{Cell, Grid, Look, Tone};
use crate::when::{Length, When};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once
    Create(Box<CreateArgs>),
    /// All keys
    List {
        /// Deleted ones too
        #[arg(long)]
        deleted: bool,
    },
    /// One key with its limits
    Show(KeyName),
    /// Change what is named; the rest stays. A list that is named (models, accounts) takes the place of all of the old
    Update(Box<UpdateArgs>),
    /// Let a disabled key work again
    Enable(KeyName),
    /// Stop a key from working until it is enabled again
    Disable(KeyName),
    /// End a key for good; its usage stays
    Delete(KeyName),
}

#[derive(Debug, Args)]
pub(crate) struct KeyName {
    /// Its id or name
    key: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name
    #[arg(value_parser = args::name)]
    name: String,
    /// What it may use: "4 concurrent", "60 requests per minute", "$20 per day", "100k tokens in total" (repeatable)
    #[arg(long = "limit", value_name = "LIMIT")]
    limits: Vec<Limit>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Let its life begin with the first use, and last so long (30d, 12h)
    #[arg(long, value_name = "LENGTH", conflicts_with = "expires")]
    valid_for: Option<Length>,
}

/// What a new and a changed key have in common.
#[derive(Debug, Args)]
pub(crate) struct ScopeArgs {
    /// Who holds it
    #[arg(long)]
    owner: Option<String>,
    /// A family of accounts that may serve it (repeatable; all when absent)
    #[arg(long = "permission", value_name = "FAMILY", value_parser = args::family())]
    permissions: Vec<Family>,
    /// Models it may ask for, such as claude-* (repeatable; all when absent)
    #[arg(long = "allow-model", value_name = "GLOB", value_parser = args::glob)]
    allow_models: Vec<Glob>,
    /// Models it may not ask for (repeatable)
    #[arg(long = "deny-model", value_name = "GLOB", value_parser = args::glob)]
    deny_models: Vec<Glob>,
    /// An account that alone may serve it (repeatable; the pool when absent)
    #[arg(long = "account", value_name = "NAME", value_parser = args::text)]
    accounts: Vec<String>,
    /// Let its calls wait for limits such as "4 concurrent": 20:30s for 20 calls that wait 30 seconds at most, or off
    #[arg(long, value_name = "CALLS:WAIT|off")]
    queue: Option<KeyQueue>,
    /// A call whose client leaves: end it at the upstream too, or read the reply to its end to know what it used
    #[arg(long, value_name = "POLICY", value_parser = args::on_disconnect())]
    on_disconnect: Option<OnDisconnect>,
    /// What its holder is charged of a family's costs, such as claude=1.5 (repeatable; 1 when absent)
    #[arg(long = "rate", value_name = "FAMILY=NUMBER", value_parser = args::rate)]
    rates: Vec<(Family, Multiplier)>,
    /// The end of its life: a time, or a length from now (30d)
    #[arg(long, value_name = "TIME")]
    expires: Option<When>,
    /// Chat Completions streams: ask the upstream for usage, or leave the request alone and estimate
    #[arg(long, value_enum, value_name = "MODE")]
    usage: Option<UsageFlag>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UsageFlag {
    Inject,
    Estimate,
}

impl From<UsageFlag> for UsageMode {
    fn from(flag: UsageFlag) -> Self {
        match flag {
            UsageFlag::Inject => Self::Inject,
            UsageFlag::Estimate => Self::Estimate,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Its id or name
    key: String,
    /// A new name
    #[arg(long, value_parser = args::name)]
    name: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Empty what had been set (repeatable)
    #[arg(long, value_enum, value_name = "FIELD")]
    clear: Vec<KeyField>,
}

/// What can be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyField {
    Owner,
    Permissions,
    AllowModels,
    DenyModels,
    Accounts,
    Limits,
    Queue,
    OnDisconnect,
    Rates,
    Expires,
}

/// Runs one command of the group.
pub(crate) async fn run(ctl: &Ctl, command: KeyCommand) -> Result<(), Failure> {
    let (client, out) = (&ctl.client, &ctl.out);
    match command {
        KeyCommand::Create(args) => create(ctl, *args).await,
        KeyCommand::List { deleted } => {
            let keys = client.call(&ListKeys { deleted }).await?;
            out.print(&*keys, |keys, look| table(keys, deleted, look))
        }
        KeyCommand::Show(KeyName { key }) => out.print(&client.call(&ShowKey { key }).await?, record),
        KeyCommand::Update(args) => out.print(&client.call(&args.call(out.now())?).await?, record),
        KeyCommand::Enable(KeyName { key }) => out.print(&client.call(&switch(key, false)).await?, line),
        KeyCommand::Disable(KeyName { key }) => out.print(&client.call(&switch(key, true)).await?, line),
        KeyCommand::Delete(KeyName { key }) => {
            let key = client.call(&ShowKey { key }).await?;
            ctl.prompt.confirm(&format!("delete the key {} ({}) for good", key.name, key.id))?;
            out.print(&client.call(&DeleteKey { key: key.id.to_string() }).await?, line)
        }
    }
}

/// The key alone is the answer, so that a script can take it; what a person should know stands beside it.
async fn create(ctl: &Ctl, args: CreateArgs) -> Result<(), Failure> {
    let created = ctl.client.call(&args.call(ctl.out.now())).await?;
    ctl.out.print(&created, |created, _| created.key.expose().to_owned())?;
    let CreatedKey { id, name, .. } = created;
    ctl.out.remark(&format!("This is the key {name:?} ({id}). It is not shown again: store it now."));
    Ok(())
}

impl CreateArgs {
    fn call(self, now: Timestamp) -> CreateKey {
        let scope = self.scope;
        CreateKey {
            name: self.name,
            owner: scope.owner,
            permissions: scope.permissions,
            allow_models: scope.allow_models,
            deny_models: scope.deny_models,
            accounts: scope.accounts,
            limits: self.limits,
            queue: scope.queue,
            on_disconnect: scope.on_disconnect,
            rates: scope.rates.into_iter().collect(),
            usage: scope.usage.map_or_else(UsageMode::default, UsageMode::from),
            expires_at: scope.expires.map(|end| end.future(now)),
            valid_s_from_first_use: self.valid_for.map(|length| length.0.as_secs()),
        }
    }
}

impl UpdateArgs {
    fn call(self, now: Timestamp) -> Result<UpdateKey, Failure> {
        let clears = |field| self.clear.contains(&field);
        let scope = self.scope;
        let (limits, limit_changes) = self.limits.changes(clears(KeyField::Limits));
        let unchanged = UpdateKey { key: self.key.clone(), ..UpdateKey::default() };
        let call = UpdateKey {
            key: self.key,
            name: self.name,
            owner: scope.owner.or_else(|| clears(KeyField::Owner).then(String::new)),
            permissions: replaced(scope.permissions, clears(KeyField::Permissions)),
            allow_models: replaced(scope.allow_models, clears(KeyField::AllowModels)),
            deny_models: replaced(scope.deny_models, clears(KeyField::DenyModels)),
            accounts: replaced(scope.accounts, clears(KeyField::Accounts)),
            limits,
            limit_changes,
            queue: scope.queue.map(Some).or_else(|| clears(KeyField::Queue).then_some(None)),
            on_disconnect: scope
                .on_disconnect
                .map(Some)
                .or_else(|| clears(KeyField::OnDisconnect).then_some(None)),
            rates: replaced(scope.rates, clears(KeyField::Rates)).map(|rates| rates.into_iter().collect()),
            usage: scope.usage.map(UsageMode::from),
            expires_at: scope.expires.map(|end| end.future(now)),
            never_expires: scope.expires.is_none() && clears(KeyField::Expires),
            disabled: None,
        };
        if call == unchanged {
            return Err(Failure::usage("nothing to change", "say what, as with --add-limit or --clear"));
        }
        Ok(call)
    }
}

fn switch(key: String, disabled: bool) -> UpdateKey {
    UpdateKey { key, disabled: Some(disabled), ..UpdateKey::default() }
}

/// One sentence about a key that was switched or deleted.
fn line(key: &KeyView, _: &Look) -> String {
    format::plain(&format!("key {} ({}) is {}", key.name, key.id, key.state))
}

/// With deleted keys among them, their end is what counts.
fn table(keys: &[KeyView], has_deleted: bool, look: &Look) -> String {
    if keys.is_empty() {
        return "no keys yet; `relayctl key create NAME` makes one".to_owned();
    }
    let columns =
        ["name", "?key", "state", "????owner", "??~served by", "??~limits", "???expires", "?????created"];
    let more = if has_deleted { &["?deleted"][..] } else { &[] };
    let mut grid = Grid::new(look, &[&columns, more].concat());
    for key in keys {
        let deleted = key.deleted_at.map_or_else(|| NOTHING.to_owned(), |at| look.ago(at));
        let cells = [
            key.name.as_str().into(),
            key.hint.as_str().into(),
            state(key),
            key.owner.as_deref().unwrap_or(NOTHING).into(),
            serves(key).into(),
            limits::cell(&key.limits).into(),
            end(key, look).into(),
            look.ago(key.created_at).into(),
        ];
        grid.row(cells.into_iter().chain(has_deleted.then(|| deleted.into())));
    }
    grid.text()
}

fn record(key: &KeyView, look: &Look) -> String {
    let mut grid = Grid::bare(look);
    grid.pair("name", key.name.as_str())
        .pair("id", key.id.as_str())
        .pair("key", key.hint.as_str())
        .pair("state", state(key))
        .pair("owner", key.owner.as_deref().unwrap_or(NOTHING))
        .pair("permissions", format::list(&families(key), "all"))
        .pair("models", format::list(&key.allow_models, "all"))
        .pair("denied models", format::list(&key.deny_models, "none"))
        .pair("accounts", format::list(&bound(key), "the pool"))
        .pair("usage", if key.usage == UsageMode::Inject { "inject" } else { "estimate" })
        .pair("queue", key.queue.map_or_else(|| "as configured".to_owned(), |queue| queue.to_string()))
        .pair("on disconnect", key.on_disconnect.map_or("as configured", OnDisconnect::name))
        .pair("rates", format::list(&rates(key), "1"))
        .pair("expires", key.expires_at.map_or_else(|| end(key, look), |at| look.at(at)))
        .pair("last used", key.last_used_at.map_or_else(|| "never".to_owned(), |at| look.happened(at)))
        .pair("created", look.happened(key.created_at));
    if let Some(at) = key.deleted_at {
        grid.pair("deleted", look.happened(at));
    }
    limits::add_rows(&mut grid, &key.limits, look);
    grid.text()
}

/// Who serves a key: the accounts that it is bound to, whatever their family, else the families that it may use.
fn serves(key: &KeyView) -> String {
    match bound(key).as_slice() {
        [] => format::list(&families(key), "all"),
        accounts => format!("only {}", format::list(accounts, "")),
    }
}

/// The accounts that a key is bound to. One that was removed says so: it serves nothing any more.
fn bound(key: &KeyView) -> Vec<String> {
    let told = |account: &BoundAccount| match account.removed {
        true => format!("{} (removed)", account.name),
        false => account.name.clone(),
    };
    key.bound.iter().map(told).collect()
}

fn families(key: &KeyView) -> Vec<&'static str> {
    key.permissions.iter().map(|family| family.name()).collect()
}

fn rates(key: &KeyView) -> Vec<String> {
    key.rates.iter().map(|(family, rate)| format!("{}={rate}", family.name())).collect()
}

fn state(key: &KeyView) -> Cell {
    let tone = match key.state.as_str() {
        "active" | "waiting" => Tone::Good,
        "disabled" => Tone::Warning,
        _ => Tone::Bad,
    };
    Cell::toned(key.state.as_str(), tone)
}

fn end(key: &KeyView, look: &Look) -> String {
    match (key.expires_at, key.valid_s_from_first_use) {
        // Its life is over, whatever it was to be.
        _ if key.deleted_at.is_some() => NOTHING.to_owned(),
        (Some(end), _) => format::seen_from(look.now, end),
        (None, Some(seconds)) => {
            format!("{} after the first use", format::length(Duration::from_secs(seconds)))
        }
        (None, None) => "never".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use shared::admin::LimitView;

    use super::*;
    use crate::args::tests::parsed;
    use crate::output::tests::{PIPE, fits};

    fn command(line: &str) -> Result<KeyCommand, clap::Error> {
        let words: Vec<_> = line.split_whitespace().map(|word| word.replace('_', " ")).collect();
        parsed(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn view() -> KeyView {
        let limit = |text: &str, used, held, resets_at| LimitView {
            limit: text.parse().unwrap(),
            used,
            held,
            resets_at,
        };
        KeyView {
            id: "key_1".into(),
            name: "alice".to_owned(),
            hint: "cr_abab…ab".to_owned(),
            state: "active".to_owned(),
            owner: None,
            permissions: vec![Family::Claude],
            allow_models: Vec::new(),
            deny_models: Vec::new(),
            accounts: Vec::new(),
            bound: Vec::new(),
            limits: vec![
                limit("4 concurrent", 0, 4, None),
                limit("60 requests per minute", 1_200, 1, Some(PIPE.now.after(Duration::from_secs(30)))),
            ],
            queue: Some("20:30s".parse().unwrap()),
            on_disconnect: Some(OnDisconnect::Drain),
            rates: std::collections::BTreeMap::new(),
            usage: UsageMode::Inject,
            expires_at: None,
            valid_s_from_first_use: Some(86_400 * 30),
            created_at: PIPE.now,
            deleted_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_is_created_as_the_flags_say() {
        let line = "key create alice --limit 4_concurrent --limit 60_requests_per_minute \
                    --owner Alice --permission claude --allow-model claude-* --expires 30d --usage estimate --queue off \
                    --on-disconnect drain";
        let KeyCommand::Create(args) = command(line).unwrap() else { panic!() };
        let call = args.call(PIPE.now);
        assert_eq!(call.name, "alice");
        assert_eq!(format::list(&call.limits, ""), "4 concurrent, 60 requests per minute");
        assert_eq!((call.permissions, call.usage), (vec![Family::Claude], UsageMode::Estimate));
        assert_eq!((call.queue, call.on_disconnect), (Some(KeyQueue::Off), Some(OnDisconnect::Drain)));
        assert_eq!(call.expires_at, Some(PIPE.now.after(Duration::from_secs(30 * 86_400))));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (line, part) in [
            ("key create", "<NAME>"),
            ("key create a --limit many", "a limit is written like"),
            ("key create a --permission cloud", "claude"),
            ("key create a --queue long", "a queue is written like"),
            ("key create a --on-disconnect stay", "[possible values: abort, drain]"),
            ("key create a --expires soon", "a time is written like"),
            ("key create a --expires 1d --valid-for 1d", "cannot be used with"),
        ] {
            let error = command(line).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn an_update_changes_what_is_named_and_nothing_else() {
        let KeyCommand::Update(args) = command(
            "key update alice --clear limits --clear expires --clear queue --clear on-disconnect --owner Bob",
        )
        .unwrap() else {
            panic!()
        };
        let call = args.call(PIPE.now).unwrap();
        let expected = UpdateKey {
            key: "alice".to_owned(),
            owner: Some("Bob".to_owned()),
            limits: Some(Vec::new()),
            queue: Some(None),
            on_disconnect: Some(None),
            never_expires: true,
            ..UpdateKey::default()
        };
        assert_eq!(call, expected);
        let KeyCommand::Update(nothing) = command("key update alice").unwrap() else { panic!() };
        assert!(matches!(nothing.call(PIPE.now), Err(Failure::Usage { .. })));
    }

    #[test]
    fn limits_are_replaced_or_changed_one_by_one() {
        let line = "key update alice --add-limit 2_concurrent --drop-limit requests_per_minute";
        let KeyCommand::Update(args) = command(line).unwrap() else { panic!() };
        let call = args.call(PIPE.now).unwrap();
        assert_eq!(call.limits, None);
        assert_eq!(format::list(&call.limit_changes.added, ""), "2 concurrent");
        assert_eq!(format::list(&call.limit_changes.dropped, ""), "requests per minute");
        for wrong in ["--limit 1_concurrent --add-limit 2_concurrent", "--drop-limit requests"] {
            assert!(command(&format!("key update alice {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_shown_with_what_is_used_of_their_limits() {
        let text = record(&view(), &PIPE);
        for part in [
            "4 concurrent: 4 open",
            "60 requests per minute: 1,200 used, 1 open, resets in 30 s",
            "30 days after the first use",
            "permissions    claude",
            "queue          20:30s",
            "on disconnect  drain",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        fits(|look| table(&[view()], false, look), &["alice", "cr_abab…ab", "active"]);
        assert!(
            table(&[view()], false, &PIPE).starts_with("NAME   KEY"),
            "{}",
            table(&[view()], false, &PIPE)
        );
        assert!(table(&[], false, &PIPE).contains("`relayctl key create NAME`"));
    }

    #[test]
    fn bound_keys_name_their_accounts() {
        let account =
            |id: &str, name: &str, removed| BoundAccount { id: id.into(), name: name.to_owned(), removed };
        let bound = vec![account("acc_1", "main", false), account("acc_2", "old", true)];
        let key = KeyView { accounts: vec!["acc_1".into(), "acc_2".into()], bound, ..view() };
        let text = table(std::slice::from_ref(&key), false, &PIPE);
        assert!(text.contains("only main, old (removed)") && !text.contains("claude"), "{text}");
        assert!(record(&key, &PIPE).contains("accounts       main, old (removed)"));
        assert!(table(&[view()], false, &PIPE).contains("  claude  "));
    }

    #[test]
    fn times_are_told_exactly_and_deleted_keys_with_theirs() {
        let at = Timestamp::from_millis;
        let key = KeyView {
            expires_at: Some(at(1_795_000_000_000 + 86_400_000)),
            last_used_at: Some(at(1_795_000_000_000 - 60_000)),
            ..view()
        };
        let text = record(&key, &PIPE);
        assert!(text.contains("expires        2026-11-19T11:06:40Z (in 24 h)"), "{text}");
        assert!(text.contains("last used      2026-11-18T11:05:40Z (1 min ago)"), "{text}");
        assert!(record(&view(), &PIPE).contains("last used      never") && !text.contains("deleted"));
        let deleted = KeyView { deleted_at: Some(at(1_795_000_000_000 - 3_600_000)), ..key };
        let text = table(&[deleted.clone(), view()], true, &PIPE);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split("  ").collect()).collect();
        assert!(lines[0].last().is_some_and(|name| name.trim() == "DELETED"), "{text}");
        assert!(text.contains("1 h ago") && !text.contains("in 24 h"), "{text}");
        assert!(record(&deleted, &PIPE).contains("deleted        2026-11-18T10:06:40Z (1 h ago)"));
    }
}
