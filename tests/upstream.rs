//! The scripted upstream keeps its word: what the other tests rest on is tested first.

use std::time::Duration;

use shared::domain::Protocol;

use crate::support::client::{Call, Client};
use crate::support::{Gate, Reply, Step, Upstream, answer, cut, until, wire};

fn client(upstream: &Upstream) -> Client {
    Client::new(upstream.address(), "none")
}

/// Calls bear the account in their path when they go to the upstream without a relay between.
fn direct(client: &Client, call: &Call) -> hyper::Request<http_body_util::Full<bytes::Bytes>> {
    let request = client.request(hyper::Method::POST, &format!("/one{}", call.path()));
    request.body(http_body_util::Full::new(call.body())).unwrap()
}

#[tokio::test]
async fn it_answers_in_every_protocol_and_logs_what_it_saw() {
    let upstream = Upstream::start();
    let client = client(&upstream);
    for protocol in Protocol::ALL {
        for call in [Call::new(protocol, "m-1"), Call::new(protocol, "m-2").streamed()] {
            let answer = client.send(direct(&client, &call)).await.rest().await.expect(200);
            assert!(!answer.is_broken);
            let seen = upstream.take_seen();
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].account.as_str(), seen[0].model()), ("one", call.model.clone()));
            assert_eq!((seen[0].protocol(), seen[0].is_stream()), (protocol, call.stream));
            assert_eq!(seen[0].body, call.body());
            if call.stream {
                let expected = wire::events(protocol, "m-2", wire::Content::Text, false).concat();
                assert_eq!(answer.body, expected);
            } else {
                assert_eq!(answer.json(), wire::whole(protocol, "m-1", wire::Content::Text));
            }
        }
    }
}

#[tokio::test]
async fn it_cuts_pauses_waits_and_breaks_off() {
    let upstream = Upstream::start();
    let client = client(&upstream);
    let gate = Gate::closed();
    let held = gate.clone();
    upstream.script(move |seen| match seen.model().as_str() {
        "cut" => Reply::stream("text/event-stream", cut(&seen.events().concat().into(), &[1, 7, 100])),
        "held" => answer(seen).after(Step::Wait(held.clone())),
        "reset" => Reply::open_stream("text/event-stream")
            .pieces(seen.events().into_iter().take(2))
            .then(Step::Pause(Duration::from_millis(20)))
            .then(Step::Reset),
        "short" => Reply::open_stream("text/event-stream").pieces(seen.events()).then(Step::Close),
        "silent" => Reply::raw(vec![Step::Stall]),
        _ => Reply::error(seen.protocol(), 429, &[("retry-after", "7")]),
    });
    let call = |model: &str| Call::new(Protocol::Messages, model).streamed();

    let cut = client.send(direct(&client, &call("cut"))).await.rest().await.expect(200);
    assert_eq!(cut.body, wire::events(Protocol::Messages, "cut", wire::Content::Text, false).concat());
    for model in ["reset", "short"] {
        let broken = client.send(direct(&client, &call(model))).await.rest().await;
        assert!(broken.is_broken, "{model}");
    }
    let limited = client.send(direct(&client, &call("other"))).await.rest().await.expect(429);
    assert_eq!(limited.header("retry-after"), Some("7"));
    limited.error_message(Protocol::Messages);

    let waiting = tokio::spawn({
        let (client, call) = (client.clone(), call("held"));
        async move { client.send(direct(&client, &call)).await.rest().await }
    });
    until("the call arrives", async || (upstream.answering() == 1).then_some(())).await;
    assert!(!waiting.is_finished());
    gate.open();
    waiting.await.unwrap().expect(200);

    let silent = tokio::spawn({
        let (client, call) = (client.clone(), call("silent"));
        async move { client.try_send(direct(&client, &call)).await.is_ok() }
    });
    until("the call arrives", async || (upstream.answering() == 1).then_some(())).await;
    silent.abort();
    until("the peer is gone", async || (upstream.gone() == 1).then_some(())).await;
}
