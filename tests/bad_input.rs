//! Broken clients and broken upstreams: the right status in the right protocol, the daemon unharmed, its
//! memory bounded.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use shared::domain::{AccountKind, Protocol, Provenance};

use crate::support::client::{Raw, status_of};
use crate::support::daemon::setting;
use crate::support::{Call, Reply, Rig, Seen, Setup, Step, answer, until, wire};

const MIB: u64 = 1024 * 1024;

/// The daemon still does its work, and has not grown.
async fn is_unharmed(rig: &mut Rig, peak_max: u64) {
    rig.upstream.script(answer);
    rig.client.call(&Call::new(Protocol::Messages, "still-well")).await.expect(200);
    assert!(rig.daemon.is_running());
    let peak = rig.daemon.memory_peak();
    assert!(peak < peak_max, "{peak} bytes of memory");
    assert_eq!(rig.daemon.status().await.store.state, "ok");
}

/// A daemon with room for one large body, and an account.
async fn small_room() -> Rig {
    let setup = Setup::default()
        .set(setting::BODY_BYTES_MAX, MIB)
        .set(setting::BODY_BYTES_IN_FLIGHT_MAX, MIB)
        .set(setting::BODY_IDLE_TIMEOUT_MS, 60_000);
    let rig = Rig::bare(setup).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    rig
}

fn path(protocol: Protocol) -> String {
    Call::new(protocol, "m").path()
}

#[tokio::test]
async fn malformed_json_is_a_400_in_the_protocol() {
    let mut rig = Rig::start().await;
    for protocol in [Protocol::Messages, Protocol::ChatCompletions, Protocol::Responses] {
        for body in [
            &b""[..],
            b"{",
            b"nonsense",
            b"[]",
            b"null",
            b"\"model\"",
            b"{}",
            b"{\"model\":7}",
            b"{\"model\":null}",
            b"{\"model\":\"m\"",
            b"{\"model\":\"m\"}}",
            b"{\"model\":\"m\"} x",
            b"{\"model\":\"\xff\xfe\"}",
            b"{\"model\":\"m\",\"model\":\"n\"}",
            b"{\"model\":\"m\",\"mod\\u0065l\":\"n\"}",
            b"{\"stream\":false,\"model\":\"m\",\"stream\":true}",
            b"\x1f\x8b\x08\x00",
        ] {
            let refused = rig.client.post(&path(protocol), body).await;
            let shown = String::from_utf8_lossy(body);
            assert_eq!(refused.status, 400, "{}, {shown}: {}", protocol.name(), refused.text());
            refused.error_message(protocol);
            assert!(refused.header("x-relay-request-id").is_some());
        }
    }
    for body in [&b"{"[..], b"[]", b"nonsense"] {
        let refused = rig.client.post(&path(Protocol::GenerateContent), body).await.expect(400);
        refused.error_message(Protocol::GenerateContent);
    }
    assert_eq!(rig.upstream.count(), 0);
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn what_only_the_upstream_can_judge_is_left_to_it() {
    let mut rig = Rig::start().await;
    let deep = format!("{{\"model\":\"m\",\"x\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    for body in [
        Bytes::from(deep),
        Bytes::from_static(b"{\"model\":\"m\",\"x\":\"\xff\xfe\"}"),
        Bytes::from_static(b"\xef\xbb\xbf{\"model\":\"m\"}"),
        Bytes::from_static(b"{\"model\":\"m\",\"x\":\"\\ud800\"}"),
        // Of a wrong kind, a field that is read counts as absent.
        Bytes::from_static(b"{\"model\":\"m\",\"stream\":\"yes\",\"max_tokens\":\"many\",\"metadata\":7}"),
    ] {
        rig.upstream.take_seen();
        let answer = rig.client.post("/v1/messages", body.clone()).await;
        match answer.status {
            200 => assert_eq!(rig.upstream.seen()[0].body, body),
            status => {
                assert_eq!(status, 400, "{}", answer.text());
                answer.error_message(Protocol::Messages);
            }
        }
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

/// A path has room for a name of 64 KiB, which would stand in errors, logs and rows.
#[tokio::test]
async fn a_model_that_the_path_names_has_the_bounds_of_one_in_the_body() {
    let rig = Rig::start().await;
    let (longest, too_long) = ("m".repeat(256), "m".repeat(257));
    for (protocol, before, after) in [
        (Protocol::GenerateContent, "/v1beta/models/", ":generateContent"),
        (Protocol::ChatCompletions, "/openai/deployments/", "/chat/completions"),
    ] {
        let body = Call::new(protocol, "m").body();
        rig.client.post(&format!("{before}{longest}{after}"), body.clone()).await.expect(200);
        for name in [too_long.clone(), "m".repeat(40_000), "%C3%A9".repeat(129)] {
            let refused = rig.client.post(&format!("{before}{name}{after}"), body.clone()).await.expect(400);
            let message = refused.error_message(protocol);
            assert!(message.contains("at most 256 bytes") && message.len() < 200, "{message}");
        }
    }
    let nameless = rig.client.post("/v1beta/models/:generateContent", "{}").await.expect(400);
    assert!(nameless.error_message(Protocol::GenerateContent).contains("empty"));
    let unknown = rig.client.get(&format!("/v1/models/{}", "%C3%A9".repeat(8_000))).await;
    assert!(unknown.expect(404).body.len() < 1_000);
}

#[tokio::test]
async fn unknown_models_and_missing_protocols_are_told_apart() {
    let rig = Rig::bare(Setup::default()).await;
    let claude = rig.account(AccountKind::ClaudeConsole, "claude");
    rig.daemon.call(&shared::admin::AddAccount { models: vec!["known-*".into()], ..claude }).await;
    let unknown = rig.client.call(&Call::new(Protocol::Messages, "never-heard-of")).await.expect(404);
    let message = unknown.error_message(Protocol::Messages);
    assert!(message.contains("never-heard-of"), "{message}");
    for protocol in [Protocol::ChatCompletions, Protocol::Responses, Protocol::GenerateContent] {
        rig.client.call(&Call::new(protocol, "known-1")).await.expect(400).error_message(protocol);
        rig.client.call(&Call::new(protocol, "never-heard-of")).await.expect(404).error_message(protocol);
    }
    rig.client.call(&Call::new(Protocol::Messages, "known-1")).await.expect(200);
}

fn head(protocol: Protocol, key: &str, more: &str) -> String {
    let path = path(protocol);
    format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_refused_unread() {
    let mut rig = Rig::start().await;
    for protocol in Protocol::ALL {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let head = head(protocol, &rig.key, &format!("content-length: {}\r\n", 200 * MIB));
        raw.send(head.as_bytes()).await.unwrap();
        let reply = raw.read_head().await;
        assert_eq!(status_of(&reply), 413, "{reply}");
        assert!(reply.to_lowercase().contains("x-relay-request-id"), "{reply}");
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_refused() {
    let mut rig = Rig::start().await;
    let mut raw = Raw::connect(rig.daemon.address()).await;
    let head = head(Protocol::Messages, &rig.key, "transfer-encoding: chunked\r\n");
    raw.send(head.as_bytes()).await.unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let reply = raw.send_until_answered(std::iter::repeat_n(&*chunk, 200)).await;
    assert_eq!(status_of(&reply), 413, "{reply}");
    is_unharmed(&mut rig, 280 * MIB).await;
}

/// What a client that reads nothing before it has sent everything learns.
async fn learned(rig: &Rig, head: String, length: usize) -> u16 {
    let mut raw = Raw::connect(rig.daemon.address()).await;
    raw.send(head.as_bytes()).await.unwrap();
    raw.send(&vec![b' '; length]).await.expect("the connection was closed while it was sending");
    status_of(&raw.read_head().await)
}

#[tokio::test]
async fn refusals_reach_clients_that_are_still_sending() {
    const LENGTH: usize = 8 << 20;
    let mut rig = Rig::bare(Setup::default().set(setting::BODY_BYTES_MAX, MIB)).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let length = format!("content-length: {LENGTH}\r\n");
    let stranger = format!("cr_{}", "0".repeat(64));
    let elsewhere = head(Protocol::Messages, &rig.key, &length).replace("/v1/messages", "/v1/mesages");
    let encoded = format!("content-encoding: br\r\n{length}");
    for (head, status) in [
        (head(Protocol::Messages, &stranger, &length), 401),
        (elsewhere, 404),
        (head(Protocol::Messages, &rig.key, &length), 413),
        (head(Protocol::Messages, &rig.key, &encoded), 415),
    ] {
        assert_eq!(learned(&rig, head, LENGTH).await, status);
    }
    // Nor does it end the connection.
    let call = Call::new(Protocol::Messages, "m");
    let mut raw = Raw::connect(rig.daemon.address()).await;
    raw.send(head(Protocol::Messages, &stranger, &length).as_bytes()).await.unwrap();
    raw.send(&vec![b' '; LENGTH]).await.unwrap();
    let body = call.body();
    let next = head(Protocol::Messages, &rig.key, &format!("content-length: {}\r\n", body.len()));
    raw.send(&[next.as_bytes(), &body].concat()).await.unwrap();
    let first = raw.read_head().await;
    assert_eq!(status_of(&first), 401, "{first}");
    until("the next call is served", async || (rig.upstream.count() == 1).then_some(())).await;
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn many_large_bodies_at_once_stay_within_the_nodes_bound() {
    let mut rig = Rig::start().await;
    let mut open = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let head = head(Protocol::Messages, &rig.key, &format!("content-length: {}\r\n", 90 * MIB));
        raw.send(head.as_bytes()).await.unwrap();
        // Enough to come in several pieces, so that they are put together.
        raw.send(&[b' '; 300_000]).await.unwrap();
        open.push(raw);
    }
    // What is only announced takes no memory.
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn bodies_that_are_open_share_the_nodes_room() {
    let rig = small_room().await;
    let large = Call::new(Protocol::Messages, "m").prompt("x".repeat(400_000));
    rig.client.call(&large).await.expect(200);

    let declared = head(Protocol::Messages, &rig.key, "content-length: 900000\r\n");
    let mut half = Raw::connect(rig.daemon.address()).await;
    half.send(declared.as_bytes()).await.unwrap();
    half.send(&[b' '; 800_000]).await.unwrap();
    until("the room is taken", async || (rig.client.call(&large).await.status == 503).then_some(())).await;
    rig.client.call(&large).await.expect(503).error_message(Protocol::Messages);
    // What cannot fit is refused before it is sent.
    let mut early = Raw::connect(rig.daemon.address()).await;
    early.send(declared.as_bytes()).await.unwrap();
    assert_eq!(status_of(&early.read_head().await), 503);
    // What fits into the rest is served.
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    // A body without a declared length pays as it comes.
    let chunk = [b"61a80\r\n".to_vec(), vec![b' '; 400_000], b"\r\n".to_vec()].concat();
    let mut growing = Raw::connect(rig.daemon.address()).await;
    let chunked = head(Protocol::Messages, &rig.key, "transfer-encoding: chunked\r\n");
    growing.send(chunked.as_bytes()).await.unwrap();
    // It may be refused while it is still sending.
    let _ = growing.send(&chunk).await;
    assert_eq!(status_of(&growing.read_head().await), 503);

    drop(half);
    until("the room is free", async || (rig.client.call(&large).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn slow_uploads_hold_only_what_they_have_sent() {
    let rig = small_room().await;
    let body = Call::new(Protocol::Messages, "slow").prompt("x".repeat(900_000)).body();
    let (beginning, rest) = body.split_at(1_000);
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let declared = format!("content-length: {}\r\n", body.len());
        raw.send(head(Protocol::Messages, &rig.key, &declared).as_bytes()).await.unwrap();
        raw.send(beginning).await.unwrap();
        slow.push(raw);
    }
    let large = Call::new(Protocol::Messages, "m").prompt("x".repeat(900_000));
    for _ in 0..4 {
        rig.client.call(&large).await.expect(200);
    }
    // Nor is any of them worse off.
    for mut raw in slow {
        raw.send(rest).await.unwrap();
        let reply = raw.read_head().await;
        assert_eq!(status_of(&reply), 200, "{reply}");
    }
}

#[tokio::test]
async fn a_smaller_limit_holds() {
    let rig = Rig::bare(Setup::default().set(setting::BODY_BYTES_MAX, 10_000)).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    rig.add(AccountKind::OpenaiResponses, "openai").await;
    rig.add(AccountKind::GeminiApi, "gemini").await;
    for protocol in Protocol::ALL {
        let call = |length| Call::new(protocol, "m").prompt("x".repeat(length));
        rig.client.call(&call(9_000)).await.expect(200);
        rig.client.call(&call(11_000)).await.expect(413).error_message(protocol);
    }
}

#[tokio::test]
async fn encodings_that_are_not_known_or_explode_are_refused() {
    let mut rig = Rig::start().await;
    let send = async |protocol: Protocol, encoding: &str, body: Vec<u8>| {
        let request = rig.client.request(Method::POST, &path(protocol)).header("content-encoding", encoding);
        rig.client.send(request.body(Full::new(body.into())).unwrap()).await.rest().await
    };
    for protocol in Protocol::ALL {
        for encoding in ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "nonsense"] {
            send(protocol, encoding, b"whatever".to_vec()).await.expect(415).error_message(protocol);
        }
        for encoding in ["gzip", "deflate"] {
            send(protocol, encoding, b"neither".to_vec()).await.expect(400).error_message(protocol);
            send(protocol, encoding, Vec::new()).await.expect(400).error_message(protocol);
        }
        let mut torn = gzipped(&Call::new(protocol, "m").body());
        torn.truncate(torn.len() - 9);
        send(protocol, "gzip", torn).await.expect(400).error_message(protocol);
    }
    assert_eq!(rig.upstream.count(), 0);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..200 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    send(Protocol::Messages, "gzip", bomb).await.expect(413).error_message(Protocol::Messages);
    is_unharmed(&mut rig, 280 * MIB).await;
}

#[tokio::test]
async fn header_floods_are_cut_off() {
    let mut rig = Rig::start().await;
    let many = (0..5_000).fold(String::new(), |many, number| many + &format!("x-{number}: 1\r\n"));
    let long = format!("x-long: {}\r\n", "a".repeat(4 * 1024 * 1024));
    let path = format!("/v1/messages?{}", "a".repeat(2 * 1024 * 1024));
    for flood in [
        head(Protocol::Messages, &rig.key, &many),
        head(Protocol::Messages, &rig.key, &long),
        format!("POST {path} HTTP/1.1\r\nhost: relay\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let reply = raw.send_until_answered([flood.as_bytes()]).await;
        assert!([414, 431].contains(&status_of(&reply)), "{reply}");
    }
    is_unharmed(&mut rig, 96 * MIB).await;
}

#[tokio::test]
async fn heads_are_bounded_to_the_byte() {
    const HEAD_BYTES_MAX: usize = 65_536;
    let rig = Rig::start().await;
    for (bytes, status) in [(HEAD_BYTES_MAX, 200), (HEAD_BYTES_MAX + 1, 431)] {
        let (start, end) = ("GET /health HTTP/1.1\r\nconnection: close\r\nx-long: ", "\r\n\r\n");
        let head = format!("{start}{}{end}", "a".repeat(bytes - start.len() - end.len()));
        let mut raw = Raw::connect(rig.daemon.address()).await;
        raw.send(head.as_bytes()).await.unwrap();
        assert_eq!(status_of(&raw.read_to_end().await), status, "{bytes} bytes");
    }
}

#[tokio::test]
async fn what_is_no_http_is_cut_off() {
    let mut rig = Rig::start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\nGET\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n",
    ] {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let _ = raw.send(bytes).await;
        let reply = raw.read_to_end().await;
        assert!(reply.is_empty() || status_of(&reply) >= 400, "{bytes:?}: {reply}");
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let setup =
        Setup::default().set(setting::HEADER_READ_TIMEOUT_MS, 600).set(setting::BODY_IDLE_TIMEOUT_MS, 600);
    let mut rig = Rig::bare(setup).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let asked = Instant::now();

    let mut silent = Raw::connect(rig.daemon.address()).await;
    let mut half_a_head = Raw::connect(rig.daemon.address()).await;
    half_a_head.send(b"POST /v1/messages HTTP/1.1\r\nhost: rel").await.unwrap();
    let mut half_a_body = Raw::connect(rig.daemon.address()).await;
    let head = head(Protocol::Messages, &rig.key, "content-length: 100\r\n");
    half_a_body.send(format!("{head}{{\"model\"").as_bytes()).await.unwrap();

    assert_eq!(silent.read_to_end().await, "");
    let reply = half_a_head.read_to_end().await;
    assert!(reply.is_empty() || status_of(&reply) == 408, "{reply}");
    let reply = half_a_body.read_head().await;
    assert_eq!(status_of(&reply), 408, "{reply}");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    assert_eq!(rig.upstream.count(), 0);
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn connections_are_capped() {
    let mut rig = Rig::bare(Setup::default().set(setting::CONNECTIONS_MAX, 8)).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let ask = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
    let mut served = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        raw.send(ask).await.unwrap();
        assert_eq!(status_of(&raw.read_reply().await), 200);
        served.push(raw);
    }
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        raw.send(ask).await.unwrap();
        waiting.push(raw);
    }
    // Whoever is served is served at once: asking the others takes longer than an answer would.
    for _ in 0..5 {
        for raw in &mut served {
            raw.send(ask).await.unwrap();
            assert_eq!(status_of(&raw.read_reply().await), 200);
        }
        assert_eq!(rig.daemon.status().await.connections, 8);
        assert!(waiting.iter().all(Raw::is_silent), "one is served beyond the cap");
    }
    drop(served);
    for mut raw in waiting {
        assert_eq!(status_of(&raw.read_reply().await), 200);
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn places_are_taken_by_connections_not_by_addresses() {
    let setup = Setup::default().set(setting::CONNECTIONS_MAX, 1).set(setting::WORKERS, 2).one_more_address();
    let rig = Rig::bare(setup).await;
    let addresses = rig.daemon.status().await.listen;
    assert_eq!(addresses.len(), 2);
    for place in [0, 0, 0, 1, 1, 1, 0, 1] {
        let address = addresses[place].trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let mut raw = Raw::connect(address).await;
        raw.send(b"GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").await.unwrap();
        assert_eq!(status_of(&raw.read_to_end().await), 200, "{address}");
    }
}

/// A broken upstream with no other to turn to.
async fn told_when_broken(reply: fn(&Seen) -> Reply) {
    let mut rig = Rig::start().await;
    for protocol in [Protocol::Messages, Protocol::Responses, Protocol::GenerateContent] {
        rig.upstream.script(reply);
        let told = rig.client.call(&Call::new(protocol, "broken").streamed()).await;
        assert!((502..=504).contains(&told.status), "{}", told.text());
        told.error_message(protocol);
    }
    for account in ["claude", "openai", "gemini"] {
        let resumed = shared::admin::UpdateAccount {
            account: account.into(),
            paused: Some(false),
            ..Default::default()
        };
        rig.daemon.call(&resumed).await;
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn an_upstream_that_resets() {
    told_when_broken(|_| Reply::raw(vec![Step::Reset])).await;
}

#[tokio::test]
async fn an_upstream_that_talks_garbage() {
    told_when_broken(|_| Reply::raw(vec![Step::Send(Bytes::from(vec![0xab; 4_096])), Step::Close])).await;
}

#[tokio::test]
async fn an_upstream_with_endless_headers() {
    told_when_broken(|_| super::failover::endless_head()).await;
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn gzip_that_was_not_asked_for_passes_whole_or_truncated() {
    let mut rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let mut encoded =
            gzipped(wire::whole(seen.protocol(), "m", wire::Content::Text).to_string().as_bytes());
        if seen.model() == "truncated" {
            encoded.truncate(encoded.len() / 2);
        }
        Reply::whole(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], encoded)
    });
    for protocol in Protocol::ALL {
        let encoded = gzipped(wire::whole(protocol, "m", wire::Content::Text).to_string().as_bytes());
        let whole = rig.client.call(&Call::new(protocol, "whole")).await.expect(200);
        assert_eq!(
            (whole.header("content-encoding"), whole.body.as_ref()),
            (Some("gzip"), encoded.as_slice())
        );
        let truncated = rig.client.call(&Call::new(protocol, "truncated")).await.expect(200);
        assert_eq!(truncated.body.as_ref(), &encoded[..encoded.len() / 2]);
    }
    for row in rig.daemon.rows().await {
        match row.model.as_str() {
            "whole" if row.provenance == Provenance::Measured => {
                assert_eq!(row.usage, wire::usage(row.protocol))
            }
            "whole" => assert_eq!(row.provenance, Provenance::Estimated),
            _ => assert!([Provenance::Estimated, Provenance::Partial].contains(&row.provenance), "{row:?}"),
        }
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn an_endless_line_passes_in_bounded_memory() {
    let mut rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let piece = Bytes::from([b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat());
        let begin = Bytes::from_static(b"data: {\"usage\":\"");
        let reply = Reply::open_stream("text/event-stream").pieces(seen.events().into_iter().take(1));
        reply.pieces([begin]).then(Step::Repeat(piece, 1_600)).end()
    });
    for protocol in Protocol::ALL {
        let mut open = rig.client.open(&Call::new(protocol, "endless").streamed()).await;
        let mut length = 0;
        while let Some(Ok(data)) = open.next().await {
            length += data.len();
        }
        assert!(length >= 1_600 * 0x10000, "{length}");
    }
    for row in rig.daemon.rows().await {
        assert_eq!(row.end, "truncated", "{row:?}");
    }
    is_unharmed(&mut rig, 64 * MIB).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_little() {
    let mut rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let piece = Bytes::from([b"10000\r\n".to_vec(), vec![b'\n'; 0x10000], b"\r\n".to_vec()].concat());
        Reply::open_stream("text/event-stream")
            .pieces(seen.events().into_iter().take(3))
            .then(Step::Repeat(piece, 1_600))
            .end()
    });
    let open = rig.client.open(&Call::new(Protocol::Messages, "unread").streamed()).await;
    assert_eq!(open.status, 200);
    is_unharmed(&mut rig, 64 * MIB).await;
    drop(open);
    assert_eq!(rig.daemon.row("unread").await.end, "client_gone");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go_and_its_account_is_not_blamed() {
    // A gap that the account could be blamed for is shorter than the one that ends it.
    let setup =
        Setup::default().set(setting::WRITE_STALL_TIMEOUT_MS, 3_000).set(setting::IDLE_TIMEOUT_MS, 1_000);
    let mut rig = Rig::bare(setup).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    rig.upstream.script(|seen| {
        let piece = Bytes::from([b"10000\r\n".to_vec(), vec![b'\n'; 0x10000], b"\r\n".to_vec()].concat());
        Reply::open_stream("text/event-stream")
            .pieces(seen.events().into_iter().take(3))
            .then(Step::Repeat(piece, 1_600))
            .end()
    });
    let open = rig.client.open(&Call::new(Protocol::Messages, "unread").streamed()).await;
    assert_eq!(open.status, 200);
    until("the upstream is let go", async || (rig.upstream.gone() == 1).then_some(())).await;
    let row = rig.daemon.row("unread").await;
    assert_eq!((row.end.as_str(), row.status), ("client_gone", 200), "{row:?}");
    let account = rig.show("claude").await;
    assert_eq!((account.health.state.as_str(), account.health.cause, account.in_flight), ("ok", None, 0));
    assert!(open.rest().await.is_broken, "the client was told that all is well");
    is_unharmed(&mut rig, 64 * MIB).await;
}
