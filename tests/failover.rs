//! A failing account is the relay's problem, not the client's.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::admin::{AccountView, AddAccount, UpdateAccount};
use shared::domain::{AccountKind, Protocol, Provenance, Timestamp};
use tokio::task::JoinSet;

use crate::support::daemon::setting;
use crate::support::upstream;
use crate::support::{Answer, Call, Client, Reply, Rig, Seen, Setup, Step, answer, until, wire};

const CLIENTS: usize = 4;
const CALLS: usize = 12;

/// A way of failing, and the states that its account may be shown in afterwards.
struct Way {
    name: &'static str,
    reply: fn(&Seen) -> Reply,
    states: &'static [&'static str],
}

const fn way(name: &'static str, reply: fn(&Seen) -> Reply, states: &'static [&'static str]) -> Way {
    Way { name, reply, states }
}

fn status(seen: &Seen, status: u16) -> Reply {
    Reply::error(seen.protocol(), status, &[])
}

fn raw(bytes: &'static [u8], end: Step) -> Reply {
    Reply::raw(vec![Step::Send(Bytes::from_static(bytes)), end])
}

const BROKEN: &[&str] = &["overloaded", "unreachable"];

const WAYS: [Way; 19] = [
    way("401", |seen| status(seen, 401), &["auth_failed"]),
    way("402", |seen| status(seen, 402), &["auth_failed"]),
    way("403", |seen| status(seen, 403), &["auth_failed", "overloaded"]),
    way("408", |seen| status(seen, 408), &["overloaded"]),
    way("429", |seen| Reply::error(seen.protocol(), 429, &[("retry-after", "120")]), &["limited"]),
    way("500", |seen| status(seen, 500), &["overloaded"]),
    way("502", |seen| status(seen, 502), &["overloaded"]),
    way("503", |seen| status(seen, 503), &["overloaded"]),
    way("504", |seen| status(seen, 504), &["overloaded"]),
    way("529", |seen| status(seen, 529), &["overloaded"]),
    way("reset", |_| Reply::raw(vec![Step::Reset]), BROKEN),
    way("closed", |_| Reply::raw(vec![Step::Close]), BROKEN),
    way("half a head", |_| raw(b"HTTP/1.1 200 OK\r\ncontent-ty", Step::Close), BROKEN),
    way("garbage", |_| raw(b"\x16\x03\x01 this is no HTTP at all\r\n\r\n", Step::Close), BROKEN),
    way("endless head", |_| endless_head(), BROKEN),
    way("silence", |_| Reply::raw(vec![Step::Stall]), BROKEN),
    way("cut in the first event", cut_in_the_first_event, BROKEN),
    way("error first", error_first, &["overloaded", "limited"]),
    way("error after announcements", error_after_announcements, &["overloaded", "limited"]),
];

pub(super) fn endless_head() -> Reply {
    let line = Bytes::from(format!("x-more: {}\r\n", "a".repeat(1_000)));
    let start = Step::Send(Bytes::from_static(b"HTTP/1.1 200 OK\r\n"));
    Reply::raw(vec![start, Step::Repeat(line, 100_000), Step::Close])
}

/// It shows that there would have been an answer, and the connection ends in the middle of it.
fn cut_in_the_first_event(seen: &Seen) -> Reply {
    let array = seen.events().first().is_some_and(|event| event.starts_with(b"["));
    if !seen.is_stream() || array {
        return Reply::raw(vec![Step::Close]);
    }
    let event = wire::events(seen.protocol(), "m", seen.content(), false).swap_remove(2);
    let half = Bytes::from(event.trim_ascii_end().to_vec());
    Reply::open_stream("text/event-stream").pieces([half]).then(Step::Close)
}

/// Whole replies have no events: there the status says it.
fn error_first(seen: &Seen) -> Reply {
    if seen.is_stream() {
        upstream::stream_of(vec![wire::error_event(seen.protocol(), "Overloaded")])
    } else {
        status(seen, 529)
    }
}

fn error_after_announcements(seen: &Seen) -> Reply {
    if !seen.is_stream() || seen.protocol() == Protocol::GenerateContent {
        return error_first(seen);
    }
    let mut events = vec![Bytes::from_static(b": keep-alive\n\n")];
    if seen.protocol() == Protocol::Responses {
        events.extend(seen.events().into_iter().take(2));
    }
    events.push(wire::error_event(seen.protocol(), "Overloaded"));
    upstream::stream_of(events)
}

/// Two accounts for each kind of client protocol, `bad-` and `good-`, of the same standing.
async fn pairs(rig: &Rig) {
    for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi] {
        for side in ["bad", "good"] {
            rig.add(kind, &format!("{side}-{}", kind.name())).await;
        }
    }
}

fn bad_accounts() -> impl Iterator<Item = String> {
    ["claude-console", "openai-responses", "gemini-api"].into_iter().map(|kind| format!("bad-{kind}"))
}

/// Brings every bad account back, as an operator would.
async fn resume(rig: &Rig) {
    for account in bad_accounts() {
        rig.resume(&account).await;
    }
}

async fn load(client: Client, model: String, first: usize) {
    for number in 0..CALLS {
        let protocol = Protocol::ALL[(first + number) % 4];
        let call = Call::new(protocol, model.as_str());
        let call = if number % 2 == 0 { call.streamed() } else { call };
        let answer = client.call(&call).await;
        assert_eq!(answer.status, 200, "{model}, {}: {}", protocol.name(), answer.text());
        assert!(!answer.is_broken && is_complete(&call, &answer), "{model}: {}", answer.text());
    }
}

fn is_complete(call: &Call, answer: &Answer) -> bool {
    let expected = if call.stream {
        wire::events(call.protocol, &call.model, wire::Content::Text, call.include_usage).concat()
    } else {
        wire::whole(call.protocol, &call.model, wire::Content::Text).to_string().into_bytes()
    };
    // The usage chunk of a Chat stream is asked for by the relay and taken out again; `usage: null` stays.
    match (call.protocol, call.stream) {
        (Protocol::ChatCompletions, true) => answer.body.ends_with(b"data: [DONE]\n\n"),
        _ => answer.body == expected,
    }
}

async fn under_load(rig: &Rig, model: &str) {
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        clients.spawn(load(rig.client.clone(), model.to_owned(), first));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

fn is_told(account: &AccountView, states: &[&str], began: Timestamp) {
    let health = &account.health;
    assert!(states.contains(&health.state.as_str()), "{}: {health:?}", account.name);
    assert!(health.cause.as_deref().is_some_and(|cause| !cause.is_empty()), "{health:?}");
    assert!(health.since.is_some_and(|since| since >= began), "{health:?}");
    assert!(health.until > health.since, "{health:?}");
}

#[tokio::test]
async fn no_way_of_failing_reaches_the_client() {
    let setup = Setup::default().set(setting::FIRST_BYTE_TIMEOUT_MS, 2_000);
    let rig = Rig::bare(setup).await;
    pairs(&rig).await;
    for way in WAYS {
        let reply = way.reply;
        let fails =
            move |seen: &Seen| if seen.account.starts_with("bad") { reply(seen) } else { answer(seen) };
        rig.upstream.script(fails);
        resume(&rig).await;
        rig.upstream.take_seen();
        let began = rig.daemon.rows().await.first().map_or(Timestamp::from_millis(0), |row| row.opened_at);
        under_load(&rig, &format!("way-{}", way.name.replace(' ', "-"))).await;
        for name in bad_accounts() {
            assert!(
                rig.upstream.seen().iter().any(|seen| seen.account == name),
                "{}: {name} was never asked",
                way.name
            );
            is_told(&rig.show(&name).await, way.states, began);
        }
    }
    for row in rig.daemon.rows().await {
        assert_eq!((row.status, row.end.as_str()), (200, "complete"), "{row:?}");
        assert_eq!((row.usage, row.provenance), (wire::usage(row.protocol), Provenance::Measured), "{row:?}");
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens() {
    let rig = Rig::bare(Setup::default()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let account = rig.account(AccountKind::ClaudeConsole, "bad");
    rig.daemon.call(&AddAccount { base_url: Some(format!("http://{nobody}")), ..account }).await;
    rig.add(AccountKind::ClaudeConsole, "good").await;
    let call = Call::new(Protocol::Messages, "m");
    for _ in 0..10 {
        rig.client.call(&call).await.expect(200);
    }
    is_told(&rig.show("bad").await, &["unreachable"], Timestamp::from_millis(0));
    // It was asked once, and not again while it rests.
    let attempts: Vec<u32> = rig.daemon.rows().await.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts.iter().filter(|attempts| **attempts == 2).count(), 1, "{attempts:?}");
    assert_eq!(attempts.iter().sum::<u32>(), 11, "{attempts:?}");
}

#[tokio::test]
async fn retry_after_is_kept_and_told() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| Reply::error(seen.protocol(), 429, &[("retry-after", "90")]));
    for protocol in [Protocol::Messages, Protocol::Responses, Protocol::GenerateContent] {
        let refused = rig.client.call(&Call::new(protocol, "m")).await.expect(429);
        refused.error_message(protocol);
        let wait: u64 = refused.header("retry-after").expect("no retry-after").parse().unwrap();
        assert!((80..=90).contains(&wait), "{wait}");
    }
    let asked = rig.upstream.count();
    // While it is limited it is not asked; the client still learns when to come back.
    let refused = rig.client.call(&Call::new(Protocol::Messages, "m")).await;
    assert!([429, 503].contains(&refused.status), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(rig.upstream.count(), asked);
    let health = rig.show("claude").await.health;
    assert_eq!(health.state, "limited");
    assert!(health.until.unwrap().since(health.since.unwrap()) >= Duration::from_secs(80));
}

#[tokio::test]
async fn the_most_hopeful_error_is_told_when_nothing_is_left() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["refused", "limited", "broken"] {
        rig.add(AccountKind::ClaudeConsole, name).await;
    }
    rig.upstream.script(|seen| match seen.account.as_str() {
        "refused" => status(seen, 401),
        "limited" => Reply::error(seen.protocol(), 429, &[("retry-after", "33")]),
        _ => status(seen, 500),
    });
    let told = rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(429);
    told.error_message(Protocol::Messages);
    assert!(told.header("retry-after").is_some());
    let row = &rig.daemon.rows().await[0];
    assert_eq!((row.attempts, row.end.as_str(), row.provenance), (3, "failed", Provenance::Unused));
    assert!(row.usage.is_empty());
}

#[tokio::test]
async fn a_refused_credential_of_ours_is_not_the_clients_fault() {
    let rig = Rig::start().await;
    for code in [401, 402, 403] {
        rig.upstream.script(move |seen| status(seen, code));
        for protocol in [Protocol::Messages, Protocol::Responses, Protocol::GenerateContent] {
            let told = rig.client.call(&Call::new(protocol, "m")).await.expect(503);
            assert!(!told.error_message(protocol).contains("upstream-"));
        }
        for account in ["claude", "openai", "gemini"] {
            rig.resume(account).await;
        }
    }
}

/// Anthropic tells it with the status and type of a client's mistake.
#[tokio::test]
async fn an_account_without_credit_makes_way() {
    let rig = Rig::bare(Setup::default()).await;
    for (name, priority) in [("poor", 10), ("rich", 20)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { priority: Some(priority), ..account }).await;
    }
    rig.upstream.script(|seen| {
        let message = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to \
                       upgrade or purchase credits.";
        match seen.account.as_str() {
            "poor" => Reply::json(400, &wire::error(seen.protocol(), 400, message)),
            _ => answer(seen),
        }
    });
    let call = Call::new(Protocol::Messages, "m");
    rig.client.call(&call).await.expect(200);
    rig.client.call(&call).await.expect(200);
    let asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    assert_eq!(asked, ["poor", "rich", "rich"]);
    let health = rig.show("poor").await.health;
    assert_eq!((health.state.as_str(), health.cause.as_deref()), {
        ("auth_failed", Some("the upstream wants to be paid first"))
    });
    let paused = UpdateAccount { account: "rich".into(), paused: Some(true), ..UpdateAccount::default() };
    rig.daemon.call(&paused).await;
    rig.resume("poor").await;
    let told = rig.client.call(&call).await.expect(503);
    assert!(!told.error_message(Protocol::Messages).contains("credit balance"));
}

#[tokio::test]
async fn the_clients_own_mistakes_are_passed_on_as_they_are() {
    let rig = Rig::start().await;
    for code in [400, 404, 413, 422] {
        rig.upstream.script(move |seen| status(seen, code));
        for protocol in Protocol::ALL {
            rig.upstream.take_seen();
            let told = rig.client.call(&Call::new(protocol, "m")).await.expect(code);
            let expected = wire::error(protocol, code, &format!("scripted {code}"));
            assert_eq!(told.json(), expected);
            assert_eq!(rig.upstream.count(), 1, "{code} was tried again");
        }
    }
    for account in ["claude", "openai", "gemini"] {
        assert_eq!(rig.show(account).await.health.state, "ok");
    }
}

#[tokio::test]
async fn a_poisonous_request_does_not_fell_the_pool() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two", "three"] {
        rig.add(AccountKind::ClaudeConsole, name).await;
    }
    for code in [500, 502, 403] {
        rig.upstream.script(
            move |seen| {
                if seen.model() == "poison" { status(seen, code) } else { answer(seen) }
            },
        );
        let poison = Call::new(Protocol::Messages, "poison").prompt(format!("poison of {code}"));
        // A client's SDK repeats a failed call twice.
        for _ in 0..3 {
            let told = rig.client.call(&poison).await;
            assert!(told.status >= 500, "{}", told.text());
            // Other calls go on meanwhile, on every account.
            until("every account has served a call", async || {
                rig.client.call(&Call::new(Protocol::Messages, "healthy")).await.expect(200);
                let seen = rig.upstream.seen();
                let healthy = seen.iter().filter(|seen| seen.model() == "healthy");
                let served: BTreeSet<_> = healthy.map(|seen| seen.account.as_str()).collect();
                (served.len() == 3).then_some(())
            })
            .await;
            rig.upstream.take_seen();
        }
        for name in ["one", "two", "three"] {
            assert_eq!(rig.show(name).await.health.state, "ok", "{name} after {code}");
        }
    }
}

/// The beginning of a stream without what tells of its end.
fn beginning(seen: &Seen) -> Vec<Bytes> {
    let mut events = seen.events();
    events.truncate(3);
    events
}

fn tells_of_an_error(protocol: Protocol, answer: &Answer) -> bool {
    let text = answer.text();
    match protocol {
        Protocol::Messages => text.contains("event: error"),
        Protocol::Responses => text.contains("event: error") || text.contains("response.failed"),
        Protocol::ChatCompletions | Protocol::GenerateContent => text.contains("data: {\"error\""),
    }
}

#[tokio::test]
async fn a_truncated_stream_is_told_as_an_error() {
    let setup = Setup::default().set(setting::IDLE_TIMEOUT_MS, 700);
    let rig = Rig::bare(setup).await;
    for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi] {
        rig.add(kind, kind.name()).await;
    }
    rig.upstream.script(|seen| match seen.model().split('-').next().unwrap() {
        "ended" => upstream::stream_of(beginning(seen)),
        "closed" => Reply::open_stream("text/event-stream").pieces(beginning(seen)).then(Step::Close),
        "reset" => Reply::open_stream("text/event-stream")
            .pieces(beginning(seen))
            .then(Step::Pause(Duration::from_millis(30)))
            .then(Step::Reset),
        _ => Reply::open_stream("text/event-stream").pieces(beginning(seen)).then(Step::Stall),
    });
    for end in ["ended", "closed", "reset", "stalled"] {
        for protocol in Protocol::ALL {
            let model = format!("{end}-{}", protocol.name());
            let asked = Instant::now();
            let answer = rig.client.call(&Call::new(protocol, model.as_str()).streamed()).await.expect(200);
            let mark = wire::terminal_mark(protocol);
            let is_finished = answer.body.windows(mark.len()).any(|window| window == mark);
            // Chat's [DONE] may follow an error.
            assert!(!is_finished || protocol == Protocol::ChatCompletions, "{model}: {}", answer.text());
            assert!(tells_of_an_error(protocol, &answer), "{model}: {}", answer.text());
            assert!(asked.elapsed() < Duration::from_secs(20), "{model}");
            let row = rig.daemon.row(&model).await;
            assert_eq!(row.end, "truncated", "{model}: {row:?}");
            assert!([Provenance::Partial, Provenance::Estimated].contains(&row.provenance), "{row:?}");
            assert!(!row.usage.is_empty(), "{row:?}");
            for account in ["claude-console", "openai-responses", "gemini-api"] {
                rig.resume(account).await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_tried_again_after_the_first_byte() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two"] {
        rig.add(AccountKind::ClaudeConsole, name).await;
    }
    rig.upstream.script(|seen| {
        let mut events = beginning(seen);
        events.extend(seen.events().into_iter().skip(3).take(2));
        upstream::stream_of(events)
    });
    let answer = rig.client.call(&Call::new(Protocol::Messages, "m").streamed()).await.expect(200);
    assert!(tells_of_an_error(Protocol::Messages, &answer), "{}", answer.text());
    assert_eq!(rig.upstream.count(), 1);
}

#[tokio::test]
async fn a_paused_account_is_not_asked() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two"] {
        rig.add(AccountKind::ClaudeConsole, name).await;
    }
    let change = |paused| UpdateAccount { account: "one".into(), paused, ..UpdateAccount::default() };
    rig.daemon.call(&change(Some(true))).await;
    assert_eq!(rig.show("one").await.health.state, "paused");
    for _ in 0..6 {
        rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    }
    assert!(rig.upstream.take_seen().iter().all(|seen| seen.account == "two"));
    rig.daemon.call(&change(Some(false))).await;
    for _ in 0..6 {
        rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    }
    assert!(rig.upstream.take_seen().iter().any(|seen| seen.account == "one"));
}

#[tokio::test]
async fn priority_goes_first() {
    let rig = Rig::bare(Setup::default()).await;
    for (name, priority) in [("spare", 60), ("first", 10)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { priority: Some(priority), ..account }).await;
    }
    for _ in 0..6 {
        rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    }
    assert!(rig.upstream.take_seen().iter().all(|seen| seen.account == "first"));
    rig.upstream.script(|seen| if seen.account == "first" { status(seen, 529) } else { answer(seen) });
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    let asked: Vec<_> = rig.upstream.take_seen().iter().map(|seen| seen.account.clone()).collect();
    assert_eq!(asked, ["first", "spare"]);
}
