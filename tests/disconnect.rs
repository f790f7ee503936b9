//! Clients that leave: the manual's matrix of moments, policies and protocols, every cell of it, and what becomes of
//! them beyond each bound.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use shared::admin::{AddAccount, CreateKey, RequestRow};
use shared::domain::{AccountKind, OnDisconnect, Protocol, Provenance, UsageClass};
use tokio::net::{TcpListener, TcpStream};

use crate::support::daemon::setting;
use crate::support::page::{column, read, rows};
use crate::support::{Call, Client, Gate, Reply, Rig, Seen, Setup, Step, admin, answer, until, wire};

/// What a client sees last where nothing else tells it that all has come.
const HERE: &[u8] = b": here\n\n";

/// How much a reply goes on that nobody wants to read.
const FLOOD_BYTES: usize = 1 << 20;

/// When a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Unsent,
    Head,
    Whole,
    FirstToken,
    Text,
    Tool,
    WholeMiddle,
    Last,
}

impl Moment {
    const ALL: [(&str, Self); 8] = [
        ("before anything was sent", Self::Unsent),
        ("before the head of a stream", Self::Head),
        ("before a whole reply", Self::Whole),
        ("before the first token", Self::FirstToken),
        ("in the middle of a text", Self::Text),
        ("in the middle of a tool's call", Self::Tool),
        ("in the middle of a whole reply", Self::WholeMiddle),
        ("after the last event", Self::Last),
    ];

    const fn is_whole(self) -> bool {
        matches!(self, Self::Whole | Self::WholeMiddle)
    }

    /// How many events of a stream come before the client leaves.
    const fn events(self, protocol: Protocol) -> usize {
        match (self, protocol) {
            (Self::FirstToken, Protocol::GenerateContent) => 0,
            (Self::FirstToken, _) => 1,
            (_, Protocol::Messages) => 5,
            (_, Protocol::ChatCompletions) => 2,
            (_, Protocol::Responses) => 5,
            (_, Protocol::GenerateContent) => 1,
        }
    }

    fn call(self, protocol: Protocol, model: String) -> Call {
        let call = Call { with_tool: self == Self::Tool, ..Call::new(protocol, model) };
        if self.is_whole() { call } else { call.streamed() }
    }

    /// A reply of which the client has read enough when the gate still holds back the rest.
    fn reply(self, seen: &Seen, gate: &Gate, rest: Rest) -> Reply {
        let wait = Step::Wait(gate.clone());
        match self {
            Self::Unsent => panic!("nothing is sent"),
            Self::Head if rest == Rest::Flood => {
                Reply::open_stream("text/event-stream").pieces(flood(seen)).then(Step::Stall).after(wait)
            }
            Self::Head => answer(seen).after(wait),
            Self::Whole | Self::WholeMiddle => self.whole(seen, wait, rest),
            Self::Last => Reply::open_stream("text/event-stream").pieces(seen.events()).then(wait).end(),
            Self::FirstToken | Self::Text | Self::Tool => {
                let (before, after) = self.halves(seen);
                let begun = Reply::open_stream("text/event-stream").pieces(before).then(wait);
                match rest {
                    Rest::Normal => begun.pieces(after).end(),
                    Rest::Flood => begun.pieces(flood(seen)).then(Step::Stall),
                }
            }
        }
    }

    /// Before its first value, a whole reply may have as many blanks as one likes.
    fn whole(self, seen: &Seen, wait: Step, rest: Rest) -> Reply {
        let body = wire::whole(seen.protocol(), &seen.model(), seen.content()).to_string();
        let blanks = if rest == Rest::Flood { FLOOD_BYTES } else { 0 };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
        let begin = Step::Send(format!("{head} {}\r\n\r\n{{", body.len() + blanks).into());
        let after = match rest {
            Rest::Normal => vec![Step::Send(body[1..].to_owned().into())],
            Rest::Flood => vec![Step::Send(" ".repeat(blanks).into()), Step::Stall],
        };
        let before = if self == Self::Whole { [wait, begin] } else { [begin, wait] };
        Reply::raw([before.to_vec(), after].concat())
    }

    fn halves(self, seen: &Seen) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut events = seen.events();
        // All of Gemini's tool call is in one event.
        if self == Self::Tool && seen.protocol() == Protocol::GenerateContent {
            let mark = self.mark(seen.protocol());
            let at = events[0].windows(mark.len()).position(|window| window == mark).unwrap() + mark.len();
            return (vec![events[0].slice(..at)], vec![events[0].slice(at..)]);
        }
        let after = events.split_off(self.events(seen.protocol()));
        events.push(Bytes::from_static(HERE));
        (events, after)
    }

    /// What the client reads last.
    fn mark(self, protocol: Protocol) -> &'static [u8] {
        match (self, protocol) {
            (Self::Last, _) => wire::terminal_mark(protocol),
            (Self::Tool, Protocol::GenerateContent) => b"\"functionCall\"",
            (Self::WholeMiddle, _) => b"{",
            _ => HERE,
        }
    }
}

/// What follows once a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The rest of a normal answer.
    Normal,
    /// More than anybody wants to read.
    Flood,
}

/// A text's beginning, then its last event over and over.
fn flood(seen: &Seen) -> Vec<Bytes> {
    let mut events = seen.events();
    events.truncate(Moment::Text.events(seen.protocol()));
    let delta = events[events.len() - 1].clone();
    events.resize(FLOOD_BYTES / delta.len(), delta);
    events
}

/// One cell of the manual's matrix, with the status and the end of its row.
#[derive(Clone, Debug)]
struct Cell {
    moment: Moment,
    policy: OnDisconnect,
    protocol: Protocol,
    provenance: Provenance,
    status: u16,
    end: String,
}

fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(json!(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The matrix as the manual has it. A cell that is empty means what stands above it.
fn matrix() -> Vec<Cell> {
    let page = read("docs/operating.md");
    let mut moment = None;
    let mut cells = Vec::new();
    for row in rows(&page).iter().filter(|(heads, _)| heads[0] == "the client leaves") {
        moment = Moment::ALL.iter().find(|(name, _)| *name == row.1[0]).or(moment);
        let (_, moment) = moment.unwrap_or_else(|| panic!("{row:?}"));
        let policy = named(column(row, "`on_disconnect`")[0]);
        let (status, end) = (column(row, "status")[0].parse().unwrap(), column(row, "end")[0]);
        cells.extend(Protocol::ALL.map(|protocol| {
            let provenance = named(column(row, protocol.name())[0]);
            Cell { moment: *moment, policy, protocol, provenance, status, end: end.to_owned() }
        }));
    }
    cells
}

fn cell(matrix: &[Cell], moment: Moment, policy: OnDisconnect, protocol: Protocol) -> &Cell {
    let is_it = |cell: &&Cell| cell.moment == moment && cell.policy == policy && cell.protocol == protocol;
    let mut found = matrix.iter().filter(is_it);
    let cell = found.next().unwrap_or_else(|| panic!("no cell for {moment:?}, {policy:?}, {protocol:?}"));
    assert!(found.next().is_none(), "two cells for {moment:?}, {policy:?}, {protocol:?}");
    cell
}

/// A daemon with a key of either policy, and upstreams to which nothing can be sent.
struct Scene {
    rig: Rig,
    silent: TcpListener,
    connections: Mutex<Vec<TcpStream>>,
    aborting: Client,
    draining: Client,
}

impl Scene {
    async fn start(setup: Setup) -> Self {
        let rig = Rig::with(setup.set(setting::HOLD_MS, 0)).await;
        // It takes connections and never speaks TLS.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", silent.local_addr().unwrap());
        for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi] {
            let account = admin::account(kind, &format!("silent-{}", kind.name()), &address);
            let models = vec!["Unsent-*".into()];
            rig.daemon.call(&AddAccount { models, priority: Some(1), ..account }).await;
        }
        let aborting = rig.client_of(&key("aborting", OnDisconnect::Abort)).await;
        let draining = rig.client_of(&key("draining", OnDisconnect::Drain)).await;
        Self { rig, silent, connections: Mutex::default(), aborting, draining }
    }

    /// Sends a call and leaves at the moment.
    async fn leave(&self, client: &Client, moment: Moment, call: &Call) {
        match moment {
            Moment::Unsent => tokio::select! {
                accepted = self.silent.accept() => self.connections.lock().unwrap().push(accepted.unwrap().0),
                _ = client.call(call) => panic!("nobody can have answered"),
            },
            Moment::Head | Moment::Whole => {
                let before = self.rig.upstream.count();
                tokio::select! {
                    () = until("the upstream has it", async || (self.rig.upstream.count() > before).then_some(())) => {}
                    _ = client.call(call) => panic!("nobody can have answered"),
                }
            }
            _ => {
                let mut open = client.open(call).await;
                open.read_past(moment.mark(call.protocol)).await;
            }
        }
    }

    /// Leaves a call, of which so many others are open; gives whether it was drained. What is drained gets the
    /// rest of its reply, unless the gate stays closed.
    async fn left(&self, cell: &Cell, rest: Rest, others: u64, opens: bool) -> bool {
        let &Cell { moment, policy, protocol, .. } = cell;
        let gate = Gate::closed();
        let held = gate.clone();
        self.rig.upstream.script(move |seen| moment.reply(seen, &held, rest));
        let client = if policy == OnDisconnect::Drain { &self.draining } else { &self.aborting };
        self.leave(client, moment, &moment.call(protocol, model(cell))).await;
        let is_drained = until("it ends or is drained", async || {
            let status = self.rig.daemon.status().await;
            match (status.in_flight == others, status.draining > others) {
                (true, _) => Some(false),
                (_, true) => Some(true),
                _ => None,
            }
        })
        .await;
        if is_drained && opens {
            gate.open();
        }
        until("it ends", async || (self.rig.daemon.status().await.in_flight == others).then_some(())).await;
        is_drained
    }
}

fn key(name: &str, policy: OnDisconnect) -> CreateKey {
    CreateKey { on_disconnect: Some(policy), ..admin::key(name) }
}

fn model(Cell { moment, policy, protocol, .. }: &Cell) -> String {
    format!("{moment:?}-{policy:?}-{}", protocol.name())
}

#[track_caller]
fn is_as_told(row: &RequestRow, cell: &Cell, provenance: Provenance) {
    assert_eq!((row.provenance, row.status), (provenance, cell.status), "{cell:?}: {row:?}");
    assert_eq!((row.end.as_str(), row.attempts), (cell.end.as_str(), 1), "{cell:?}: {row:?}");
    match provenance {
        Provenance::Measured => assert_eq!(row.usage, wire::usage(cell.protocol), "{cell:?}: {row:?}"),
        provenance => {
            assert_eq!(row.usage.is_empty(), provenance == Provenance::Unused, "{cell:?}: {row:?}");
        }
    }
}

fn row_of<'a>(rows: &'a [RequestRow], cell: &Cell) -> &'a RequestRow {
    let mut found = rows.iter().filter(|row| row.model == model(cell));
    let row = found.next().unwrap_or_else(|| panic!("no row for {cell:?}"));
    assert!(found.next().is_none(), "two rows for {cell:?}");
    row
}

#[tokio::test]
async fn every_cell_of_the_matrix_is_as_the_manual_says() {
    let matrix = matrix();
    assert_eq!(matrix.len(), Moment::ALL.len() * OnDisconnect::ALL.len() * Protocol::ALL.len());
    let scene = Scene::start(Setup::default()).await;
    let of = |policy| matrix.iter().filter(move |cell| cell.policy == policy);
    // An upstream may take the end of a drain for a peer that goes, so drains come last.
    for cell in of(OnDisconnect::Abort).chain(of(OnDisconnect::Drain)) {
        let gone = scene.rig.upstream.gone();
        let has_rest = !matches!(cell.moment, Moment::Unsent | Moment::Last);
        let is_drained = scene.left(cell, Rest::Normal, 0, true).await;
        assert_eq!(is_drained, has_rest && cell.policy == OnDisconnect::Drain, "{cell:?}");
        if has_rest && !is_drained {
            until("it is ended", async || (scene.rig.upstream.gone() > gone).then_some(())).await;
        }
    }
    let rows = scene.rig.daemon.rows().await;
    assert_eq!(rows.len(), matrix.len());
    matrix.iter().for_each(|cell| is_as_told(row_of(&rows, cell), cell, cell.provenance));
}

/// What ends drains.
struct Limit {
    setting: setting::Name,
    value: u64,
    rest: Rest,
    /// Some calls are not drained at all.
    refuses: fn(Moment) -> bool,
    moments: &'static [Moment],
}

const LEFT: [Moment; 6] =
    [Moment::Head, Moment::Whole, Moment::FirstToken, Moment::Text, Moment::Tool, Moment::WholeMiddle];

/// Leaves calls of a key that drains; beyond the bound each is booked as if its client's leaving had ended it then.
async fn is_bounded(limit: &Limit) {
    let matrix = matrix();
    let scene = Scene::start(Setup::default().set(limit.setting, limit.value)).await;
    let opens = limit.rest == Rest::Flood;
    for &moment in limit.moments {
        for protocol in Protocol::ALL {
            let cell = cell(&matrix, moment, OnDisconnect::Drain, protocol);
            let gone = scene.rig.upstream.gone();
            let is_drained = scene.left(cell, limit.rest, 0, opens).await;
            assert!(!(is_drained && (limit.refuses)(moment)), "{cell:?}");
            until(&format!("the upstream is let go: {cell:?}, drained {is_drained}"), async || {
                (scene.rig.upstream.gone() > gone).then_some(())
            })
            .await;
        }
    }
    let rows = scene.rig.daemon.rows().await;
    for &moment in limit.moments {
        for protocol in Protocol::ALL {
            let drained = cell(&matrix, moment, OnDisconnect::Drain, protocol);
            let row = row_of(&rows, drained);
            // What came after the client left counts too.
            let reached = if opens && !moment.is_whole() { Moment::Text } else { moment };
            let aborted = cell(&matrix, reached, OnDisconnect::Abort, protocol);
            is_as_told(row, drained, aborted.provenance);
            let tokens = row.usage[UsageClass::Output];
            assert!(tokens < 2_500, "{tokens} of many thousand tokens were read: {row:?}");
        }
    }
}

#[tokio::test]
async fn drains_are_bounded_in_time() {
    let (setting, moments) = (setting::DRAIN_MS, &LEFT);
    is_bounded(&Limit { setting, value: 300, rest: Rest::Normal, refuses: |_| false, moments }).await;
}

/// A whole reply cannot be counted as it comes: where more than the bound is likely, it is not waited for.
#[tokio::test]
async fn drains_are_bounded_in_tokens() {
    let (setting, refuses) = (setting::DRAIN_TOKENS_MAX, |moment| moment == Moment::Whole);
    let moments = &[Moment::Head, Moment::Whole, Moment::FirstToken, Moment::Text];
    is_bounded(&Limit { setting, value: 20, rest: Rest::Flood, refuses, moments }).await;
}

#[tokio::test]
async fn drains_are_bounded_in_bytes() {
    let (setting, refuses) = (setting::DRAIN_BYTES_MAX, |_| false);
    let moments = &[Moment::Head, Moment::Whole, Moment::FirstToken, Moment::Text, Moment::WholeMiddle];
    is_bounded(&Limit { setting, value: 4_096, rest: Rest::Flood, refuses, moments }).await;
}

#[tokio::test]
async fn drains_are_bounded_in_number() {
    let matrix = matrix();
    let scene = Scene::start(Setup::default().set(setting::DRAINS_MAX, 1)).await;
    let gate = Gate::closed();
    let held = gate.clone();
    scene.rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    scene.leave(&scene.draining, Moment::Whole, &Call::new(Protocol::Messages, "first")).await;
    until("it is drained", async || (scene.rig.daemon.status().await.draining == 1).then_some(())).await;
    for moment in LEFT {
        for protocol in Protocol::ALL {
            let cell = cell(&matrix, moment, OnDisconnect::Drain, protocol);
            assert!(!scene.left(cell, Rest::Normal, 1, true).await, "{cell:?}");
        }
    }
    gate.open();
    let rows = scene.rig.daemon.rows().await;
    for moment in LEFT {
        for protocol in Protocol::ALL {
            let aborted = cell(&matrix, moment, OnDisconnect::Abort, protocol);
            let drained = cell(&matrix, moment, OnDisconnect::Drain, protocol);
            is_as_told(row_of(&rows, drained), drained, aborted.provenance);
        }
    }
    let first = scene.rig.daemon.row("first").await;
    assert_eq!((first.provenance, first.end.as_str()), (Provenance::Measured, "client_gone"), "{first:?}");
    // Its place is free again.
    let next = cell(&matrix, Moment::Text, OnDisconnect::Drain, Protocol::Responses);
    let again = Cell { policy: OnDisconnect::Drain, moment: Moment::Last, ..next.clone() };
    assert!(!scene.left(&again, Rest::Normal, 0, true).await);
}

/// The clock runs from when the client left, not from the opening.
#[tokio::test]
async fn time_counts_from_the_leaving() {
    let scene = Scene::start(Setup::default().set(setting::DRAIN_MS, 1_000)).await;
    let matrix = matrix();
    let cell = cell(&matrix, Moment::Text, OnDisconnect::Drain, Protocol::Messages);
    let began = Instant::now();
    assert!(scene.left(cell, Rest::Normal, 0, false).await);
    assert!(began.elapsed() >= Duration::from_millis(1_000), "{:?}", began.elapsed());
}
