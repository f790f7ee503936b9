//! `relayctl quickstart`: from nothing to a first answer through the relay, and the way back with `--stop`.
//! Run twice it does no harm: what is there already is used.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use shared::admin::{
    CreateKey, CreatedKey, DeleteKey, ListKeys, ListRequests, RequestRow, ShowStatus, StatusView,
};
use shared::domain::RequestId;
use tokio::time::{Instant, sleep};

mod exports;
mod launch;
mod plan;
mod stream;

use exports::Export;
use launch::Started;
use plan::{AccountPlan, KeyPlan, Vendor};
use stream::{Reply, StreamError};

use crate::client::{Client, ClientError};
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::place;
use crate::process;
use crate::stopping::{self, Stopped};

/// The ledger learns of a reply within milliseconds of its end.
const BOOKED_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(25);
const PLACEHOLDER: &str = "YOUR_QUICKSTART_KEY";

#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// End the daemon that quickstart started
    #[arg(long, conflicts_with = "model")]
    stop: bool,
    /// The model to ask [default: a small one of the account's vendor]
    #[arg(long, value_parser = crate::args::text)]
    model: Option<String>,
}

/// What quickstart did, for programs.
#[derive(Debug, Serialize)]
struct Report {
    listen: SocketAddr,
    data: String,
    account: String,
    simulated: bool,
    /// The new key in clear; absent where an earlier quickstart made it.
    key: Option<String>,
    reply: String,
    request: RequestRow,
    exports: Vec<Export>,
}

/// Starts, asks and tells, or ends what was started.
pub(crate) async fn run(ctl: &Ctl, args: QuickstartArgs) -> Result<(), Failure> {
    let start = Quickstart::new(ctl);
    if args.stop { start.stop().await } else { start.run(args.model).await }
}

/// The daemon that quickstart works with: the one whose socket was named, else that of the data folder,
/// whether or not the machine also has a service.
struct Quickstart<'a> {
    ctl: &'a Ctl,
    client: Client,
}

/// A key for the first request.
struct KeyInHand {
    created: CreatedKey,
    /// The ends of the key that an earlier quickstart made, if the one in hand is borrowed.
    kept: Option<String>,
}

impl<'a> Quickstart<'a> {
    fn new(ctl: &'a Ctl) -> Self {
        let place = &ctl.place;
        let client = if place.socket_is_named {
            ctl.client.clone()
        } else {
            Client::new(place.data.as_deref().map(place::socket_in))
        };
        Self { ctl, client }
    }

    async fn run(&self, model: Option<String>) -> Result<(), Failure> {
        let out = &self.ctl.out;
        let (status, relay) = self.running().await?;
        let (vendor, account) = self.account(&status, relay).await?;
        let key = self.key().await?;
        let model = model.unwrap_or_else(|| vendor.model().to_owned());
        out.say(&format!("asking {}: {}\n\n", format::plain(&model), plan::QUESTION))?;
        let (reply, row) = self.first_request(relay, vendor, &account, &model, &key).await?;
        out.say(&format!("\n\n{}\n", summary(&row)))?;
        let shown = if key.kept.is_some() { PLACEHOLDER } else { key.created.key.expose() };
        let report = Report {
            listen: relay,
            data: status.data,
            account,
            simulated: vendor == Vendor::Simulator,
            key: key.kept.is_none().then(|| key.created.key.expose().to_owned()),
            reply: reply.text,
            request: row,
            exports: exports::all(relay, shown),
        };
        out.print(&report, |report, _| self.farewell(report, key.kept.as_deref()))
    }

    /// Uses the daemon that answers, or starts one.
    async fn running(&self) -> Result<(StatusView, SocketAddr), Failure> {
        let (out, place) = (&self.ctl.out, &self.ctl.place);
        let answer = self.client.call(&ShowStatus {}).await;
        if let (Err(ClientError::NoAnswer(_)), Some(data), false) =
            (&answer, &place.data, place.socket_is_named)
        {
            let (status, relay) = launch::start(&self.client, data).await?;
            if relay.port() != launch::FIRST_PORT {
                out.say(&format!("port {} is taken, so it is {}\n", launch::FIRST_PORT, relay.port()))?;
            }
            let log = launch::log_in(data);
            out.say(&format!("relayd is started on http://{relay}; its log is {}\n", log.display()))?;
            return Ok((status, relay));
        }
        let status = answer?;
        let relay = status.listen.iter().find_map(|listen| plan::reachable(listen)).ok_or_else(|| {
            Failure::bad_news("relayd listens on no address that can be called", "give it one with --listen")
        })?;
        out.say(&format!("relayd is running already on http://{relay}\n"))?;
        Ok((status, relay))
    }

    async fn account(&self, status: &StatusView, relay: SocketAddr) -> Result<(Vendor, String), Failure> {
        let found = plan::credential(|name| env::var(name).ok(), relay);
        let (vendor, name) = match plan::account(found.as_ref().map(|found| found.vendor), &status.accounts) {
            AccountPlan::Reuse { vendor, name } => {
                self.ctl.out.say(&format!("account {name} is there already\n"))?;
                (vendor, name)
            }
            AccountPlan::Add { vendor, name } => {
                if let Some(found) = &found {
                    self.ctl
                        .out
                        .say(&format!("account {name} is made with the key in {}\n", found.variable))?;
                }
                self.client.call(&plan::addition(vendor, name.clone(), found)).await?;
                (vendor, name)
            }
        };
        if vendor == Vendor::Simulator {
            self.ctl.out.say(&format!(
                "account {name}: no ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY is set, so answers are \
                 SIMULATED;\n  add a real account with `{} account add`\n",
                self.command()
            ))?;
        }
        Ok((vendor, name))
    }

    /// Makes a key, after deleting those that interrupted runs left behind.
    async fn key(&self) -> Result<KeyInHand, Failure> {
        let keys = self.client.call(&ListKeys { deleted: false }).await?;
        for left in plan::left_behind(&keys, self.ctl.out.now(), process::lives) {
            self.client.call(&DeleteKey { key: left.id.to_string() }).await?;
        }
        match plan::key(&keys, std::process::id()) {
            KeyPlan::Make => {
                let name = plan::KEY_NAME.to_owned();
                let created = self.client.call(&CreateKey { name, ..CreateKey::default() }).await?;
                self.ctl.out.say(&format!("key {} is made: {}\n", created.name, created.key.expose()))?;
                Ok(KeyInHand { created, kept: None })
            }
            KeyPlan::Borrow { kept, name } => {
                let created = self.client.call(&plan::check_key(name, self.ctl.out.now())).await?;
                self.ctl.out.say(&format!("key {} ({}) is there already\n", kept.name, kept.hint))?;
                Ok(KeyInHand { created, kept: Some(kept.hint.clone()) })
            }
        }
    }

    /// Sends the request and finds its row; a borrowed key is deleted whatever happens.
    async fn first_request(
        &self,
        relay: SocketAddr,
        vendor: Vendor,
        account: &str,
        model: &str,
        key: &KeyInHand,
    ) -> Result<(Reply, RequestRow), Failure> {
        let out = &self.ctl.out;
        let mut has_begun = false;
        let show = |piece: &str| {
            has_begun = true;
            out.say(&format::plain(piece))
        };
        let sent = stream::send(relay, key.created.key.expose(), vendor.call(model), show).await;
        let booked = match &sent {
            Ok(reply) => self.booked(reply.request).await,
            Err(_) => Ok(None),
        };
        if has_begun && sent.is_err() {
            out.say("\n")?;
        }
        // A new key that nobody has been shown is of no use either.
        if key.kept.is_some() || (sent.is_err() && out.is_json()) {
            self.client.call(&DeleteKey { key: key.created.id.to_string() }).await?;
        }
        let reply = sent.map_err(|error| self.request_failed(error, account))?;
        let row = booked?.ok_or_else(|| {
            Failure::bad_news(
                "the reply came, but its row did not appear in the ledger",
                format!("`{} status` says how the store is", self.command()),
            )
        })?;
        Ok((reply, row))
    }

    async fn booked(&self, id: Option<RequestId>) -> Result<Option<RequestRow>, Failure> {
        let Some(id) = id else { return Ok(None) };
        let deadline = Instant::now() + BOOKED_WITHIN;
        loop {
            let rows = self.client.call(&ListRequests { id: Some(id), ..ListRequests::default() }).await?;
            match rows.into_iter().next() {
                None if Instant::now() < deadline => sleep(POLL).await,
                row => return Ok(row),
            }
        }
    }

    fn request_failed(&self, error: StreamError, account: &str) -> Failure {
        match error {
            StreamError::Show(failure) => failure,
            error => Failure::bad_news(
                format!("the first request failed: {:#}", anyhow::Error::new(error)),
                format!(
                    "`{} account test {account}` says what the account's upstream answers",
                    self.command()
                ),
            ),
        }
    }

    /// `relayctl` with the flags that lead to this daemon.
    fn command(&self) -> String {
        let place = &self.ctl.place;
        let flag = |name: &str, path: Option<&Path>| {
            path.map_or_else(String::new, |path| format!(" {name} {}", quoted(&path.display().to_string())))
        };
        let is_usual = !place.data_is_named && place.socket.as_deref() == self.client.socket();
        let place = match (place.socket_is_named, is_usual) {
            (true, _) => flag("--socket", self.client.socket()),
            (false, false) => flag("--data", place.data.as_deref()),
            (false, true) => String::new(),
        };
        format!("relayctl{place}")
    }

    fn farewell(&self, report: &Report, kept: Option<&str>) -> String {
        let command = self.command();
        let mut text = format!("\n{}", exports::text(&report.exports));
        if let Some(hint) = kept {
            text.push_str(&format!(
                "\n{PLACEHOLDER} stands for the key {hint}, which was shown when quickstart made it;\n\
                 `{command} key create NAME` makes another.\n"
            ));
        }
        if report.key.is_some() {
            text.push_str("\nThe key is not shown again: store it now.\n");
        }
        if self.started().is_some() {
            text.push_str(&format!("\n`{command} quickstart --stop` ends relayd.\n"));
        }
        text
    }

    /// What an earlier quickstart started.
    fn started(&self) -> Option<Started> {
        self.ctl.place.data.as_deref().and_then(Started::load)
    }

    /// What was started has ended.
    fn forget(&self) {
        if let Some(data) = &self.ctl.place.data {
            Started::forget(data);
        }
    }

    /// Ends the daemon that quickstart started, and no other.
    async fn stop(&self) -> Result<(), Failure> {
        let status = match self.client.call(&ShowStatus {}).await {
            Ok(status) => status,
            Err(error) => {
                if matches!(error, ClientError::NoAnswer(_)) {
                    self.forget();
                }
                return Err(error.into());
            }
        };
        if !self.started().is_some_and(|started| started.is(&status)) {
            return Err(Failure::bad_news(
                format!("relayd (process {}) was not started by quickstart and goes on", status.pid),
                format!("`{} stop` ends it", self.command()),
            ));
        }
        let end = stopping::stop_and_watch(&self.client, &self.ctl.out, &status).await?;
        self.forget();
        let report = StopReport { stopped: end == Stopped::Ended, message: end.told(status.pid) };
        self.ctl.out.print(&report, |report, _| report.message.clone())
    }
}

/// How `--stop` went.
#[derive(Debug, Serialize)]
struct StopReport {
    stopped: bool,
    message: String,
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Tokens, cost and time of the first request.
fn summary(row: &RequestRow) -> String {
    let mut text = format!(
        "{} tokens in, {} out; {}; {}",
        format::count(row.usage.prompt_tokens()),
        format::count(row.usage.answer_tokens()),
        format::cost(row.cost, row.unpriced),
        format::millis(row.total_ms)
    );
    if let Some(first) = row.first_byte_ms {
        text.push_str(&format!(", the first byte after {}", format::millis(first)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_where_they_must() {
        for (word, expected) in
            [("/data/relayd", "/data/relayd"), ("/my data", "'/my data'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
