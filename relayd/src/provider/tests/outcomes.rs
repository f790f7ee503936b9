use std::time::Duration;

use http::StatusCode;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn reply<'a>(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> ErrorReply<'a> {
    ErrorReply { status, headers, body, now: NOW, model: "gpt-5.6", fingerprint: 7 }
}

#[test]
fn a_status_says_what_ails_the_account() {
    let suspect = |status| Outcome::Suspect { failure: Failure::Status(status), fingerprint: 7 };
    let told = Some(NOW.after(Duration::from_secs(9)));
    for (status, expected) in [
        (400, Outcome::Refused),
        (401, Outcome::AuthFailed { status: 401 }),
        (402, Outcome::AuthFailed { status: 402 }),
        (403, suspect(403)),
        (404, Outcome::Refused),
        (408, suspect(408)),
        (409, Outcome::Refused),
        (413, Outcome::Refused),
        (422, Outcome::Refused),
        (429, Outcome::Limited { until: told, is_models: false }),
        (500, suspect(500)),
        (501, suspect(501)),
        (502, suspect(502)),
        (503, Outcome::Overloaded { until: told }),
        (504, suspect(504)),
        (529, Outcome::Overloaded { until: told }),
        (599, suspect(599)),
    ] {
        let headers = headers(&[("retry-after", "9")]);
        for kind in AccountKind::ALL {
            assert_eq!(provider(kind).outcome(&reply(status, &headers, b"")), expected, "{kind} {status}");
        }
    }
}

#[test]
fn a_limit_that_names_the_model_is_the_models() {
    for (body, expected) in [
        ("", false),
        ("Rate limit reached for requests per minute", false),
        ("Rate limit reached for gpt-5.6 in organization org-1 on tokens per min", true),
        (r#"{"quotaDimensions": {"location": "global", "model": "gpt-5.6"}}"#, true),
        ("You have no more of gpt-5.6.", true),
        ("limit of gpt-5.6-mini, gpt-5.60, gpt-5.6.1, chatgpt-5.6 and my_gpt-5.6", false),
        ("limit of gpt-5.6-mini and of models/gpt-5.6", true),
    ] {
        let expected = Outcome::Limited { until: None, is_models: expected };
        let headers = HeaderMap::new();
        assert_eq!(
            provider(OpenaiResponses).outcome(&reply(429, &headers, body.as_bytes())),
            expected,
            "{body}"
        );
    }
    let headers = HeaderMap::new();
    let nameless = ErrorReply { model: "", ..reply(429, &headers, b"no more") };
    assert_eq!(outcome_by_status(&nameless), Outcome::Limited { until: None, is_models: false });
}

/// As the API words it.
const NO_CREDIT: &str = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to \
                         upgrade or purchase credits.";

#[test]
fn anthropic_says_with_400_that_it_is_not_paid() {
    let error = |message: &str| {
        let error = serde_json::json!({"type": "invalid_request_error", "message": message});
        serde_json::json!({"type": "error", "error": error, "request_id": "req_1"}).to_string()
    };
    let headers = HeaderMap::new();
    let outcome =
        |kind, status, body: &str| provider(kind).outcome(&reply(status, &headers, body.as_bytes()));
    let unpaid = Outcome::AuthFailed { status: 402 };
    for kind in [ClaudeConsole, Ccr] {
        assert_eq!(outcome(kind, 400, &error(NO_CREDIT)), unpaid);
        assert_eq!(outcome(kind, 400, &error(&NO_CREDIT.replace("Anthropic", "Claude"))), unpaid);
        // In a stream, the message is all that there is.
        assert_eq!(outcome(kind, 400, NO_CREDIT), unpaid);
        for echoed in [
            format!("{NO_CREDIT}: Extra inputs are not permitted"),
            format!("messages.0.content: Input should be a valid string, not {NO_CREDIT}"),
        ] {
            assert_eq!(outcome(kind, 400, &error(&echoed)), Outcome::Refused, "{echoed}");
        }
        assert_eq!(outcome(kind, 404, &error(NO_CREDIT)), Outcome::Refused);
        assert_eq!(outcome(kind, 400, "{}"), Outcome::Refused);
    }
    assert_eq!(outcome(OpenaiResponses, 400, &error(NO_CREDIT)), Outcome::Refused);
}

#[test]
fn gemini_refuses_bad_keys_with_400() {
    let body = br#"{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}}"#;
    let headers = HeaderMap::new();
    let outcome = |kind, status: StatusCode| provider(kind).outcome(&reply(status.as_u16(), &headers, body));
    assert_eq!(outcome(GeminiApi, StatusCode::BAD_REQUEST), Outcome::AuthFailed { status: 400 });
    assert_eq!(outcome(GeminiApi, StatusCode::NOT_FOUND), Outcome::Refused);
    assert_eq!(outcome(OpenaiResponses, StatusCode::BAD_REQUEST), Outcome::Refused);
    assert_eq!(provider(GeminiApi).outcome(&reply(400, &headers, b"{}")), Outcome::Refused);
    // What a client wrote is repeated in messages, and must not make an account rest.
    let echo = br#"{"error": {"message": "Unknown name \"API_KEY_INVALID\": Cannot find field."}}"#;
    assert_eq!(provider(GeminiApi).outcome(&reply(400, &headers, echo)), Outcome::Refused);
}

#[test]
fn the_time_to_come_back_is_read_in_every_form() {
    let retry_info = br#"{"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "34.5s"}]}}"#;
    for (sent, body, expected_ms) in [
        (&[][..], &b""[..], None),
        (&[("retry-after", "7")], b"", Some(7_000)),
        (&[("retry-after", " 7 ")], b"", Some(7_000)),
        (&[("retry-after", "0")], b"", Some(0)),
        (&[("retry-after", "1.5")], b"", Some(1_500)),
        (&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")], b"", Some(30_000)),
        (&[("retry-after-ms", "250")], b"", Some(250)),
        (&[("retry-after-ms", "250.4")], b"", Some(250)),
        (&[("retry-after-ms", "250"), ("retry-after", "7")], b"", Some(250)),
        (&[("retry-after-ms", "soon"), ("retry-after", "7")], b"", Some(7_000)),
        (&[], retry_info, Some(34_500)),
        (&[("retry-after", "7")], retry_info, Some(7_000)),
        (&[("retry-after", "later")], retry_info, Some(34_500)),
        (&[("retry-after", "-7")], b"", None),
        (&[("retry-after", "inf")], b"", None),
        (&[("retry-after", "NaN")], b"", None),
        (&[("retry-after", "1e300")], b"", None),
        (&[("retry-after", "Tue, 99 Nov 2023 22:13:50 GMT")], b"", None),
        (&[("retry-after", "")], b"", None),
        (&[], b"\"retryDelay\"", None),
        (&[], b"\"retryDelay\": \"", None),
        (&[], b"\"retryDelay\": \"34\"", None),
        (&[], b"\"retryDelay\": \"-1s\"", None),
        (&[], b"\"retryDelay\": \"\xffs\"", None),
        (&[], b"\"retryDelay\": null, \"s\": 1", None),
    ] {
        let headers = headers(sent);
        let at = retry_at(&reply(429, &headers, body)).map(|at| at.as_millis() - NOW.as_millis());
        assert_eq!(at, expected_ms, "{sent:?} {:?}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_time_beyond_all_times_is_the_last_one() {
    let headers = headers(&[("retry-after", "1e18")]);
    assert!(retry_at(&reply(429, &headers, b"")).is_some_and(|at| at > NOW));
}
