//! Web pages: which may call, and that none may unless the operator says so.

use http_body_util::Full;
use hyper::{Method, Request};
use shared::domain::{AccountKind, Protocol};

use crate::support::daemon::setting;
use crate::support::{Answer, Call, Rig, Setup};

const PAGE: &str = "https://app.example.com";
const OTHER_PAGE: &str = "https://evil.example.com";

async fn rig(cors: Option<&str>) -> Rig {
    let setup = cors.into_iter().fold(Setup::default(), |setup, cors| setup.set(setting::CORS, cors));
    let rig = Rig::bare(setup).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    rig
}

/// What a browser asks before it sends a call of a page.
async fn preflight(rig: &Rig, origin: &str) -> Answer {
    let uri = format!("http://{}/v1/messages", rig.daemon.address());
    let request = Request::builder().method(Method::OPTIONS).uri(uri).header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, x-api-key, anthropic-version");
    rig.client.send(request.body(Full::default()).unwrap()).await.rest().await
}

async fn call(rig: &Rig, path: &str, origin: &str) -> Answer {
    let request = rig.client.request(Method::POST, path).header("origin", origin);
    let body = Full::new(Call::new(Protocol::Messages, "m").streamed().body());
    rig.client.send(request.body(body).unwrap()).await.rest().await
}

fn may_read(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[tokio::test]
async fn no_page_may_call_by_default() {
    let rig = rig(None).await;
    let asked = preflight(&rig, PAGE).await.expect(405);
    assert_eq!((may_read(&asked), asked.header("access-control-allow-methods")), (None, None));
    // The call itself is not hindered: that the page must not read the answer, its browser sees to.
    let answer = call(&rig, "/v1/messages", PAGE).await.expect(200);
    assert_eq!(may_read(&answer), None);
}

#[tokio::test]
async fn listed_pages_may_call_and_read_errors_too() {
    let rig = rig(Some("https://first.example.com, https://app.example.com")).await;
    let asked = preflight(&rig, PAGE).await.expect(204);
    assert_eq!(may_read(&asked), Some(PAGE));
    assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
    let headers = asked.header("access-control-allow-headers").unwrap();
    for header in ["authorization", "x-api-key", "anthropic-version"] {
        assert!(headers.contains(header), "{header}: {headers}");
    }
    assert!(asked.body.is_empty());

    for (path, status) in [("/v1/messages", 200), ("/v1/mesages", 404), ("/v1/chat/completions", 400)] {
        let answer = call(&rig, path, PAGE).await.expect(status);
        assert_eq!(may_read(&answer), Some(PAGE), "{path}");
        // Caches must not give one page's answer to another.
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")), "{path}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-relay-request-id") && exposed.contains("retry-after"), "{exposed}");
    }

    let asked = preflight(&rig, OTHER_PAGE).await.expect(405);
    assert_eq!(may_read(&asked), None);
    assert_eq!(may_read(&call(&rig, "/v1/messages", OTHER_PAGE).await.expect(200)), None);
    assert_eq!(may_read(&rig.client.get("/v1/models").await.expect(200)), None, "no browser, no header");
}

#[tokio::test]
async fn a_star_lets_every_page_call() {
    let rig = rig(Some("*")).await;
    for page in [PAGE, OTHER_PAGE] {
        assert_eq!(may_read(&preflight(&rig, page).await.expect(204)), Some(page));
        assert_eq!(may_read(&call(&rig, "/v1/messages", page).await.expect(200)), Some(page));
    }
}
