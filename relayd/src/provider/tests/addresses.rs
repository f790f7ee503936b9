use super::*;

/// Each row: the account's address, where a call goes, where a probe goes.
fn check(kind: AccountKind, rows: &[(&str, Said<'_>, &str, &str)]) {
    for &(base, call, expected, models) in rows {
        let account = account(kind, base);
        let request = built(&account, "secret", call).unwrap();
        assert_eq!(request.uri().to_string(), expected, "{kind} {base}");
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.body().to_bytes(), "{ }");
        let probe = probed(&account, "secret");
        assert_eq!(probe.uri().to_string(), models, "probe of {kind} {base}");
        assert_eq!(probe.method(), Method::GET);
        assert!(probe.body().is_empty());
    }
}

#[test]
fn anthropics_address_may_end_with_version_and_endpoint() {
    let messages = said(Messages, Generate);
    check(
        ClaudeConsole,
        &[
            ("https://a.test", messages, "https://a.test/v1/messages", "https://a.test/v1/models"),
            ("https://a.test/", messages, "https://a.test/v1/messages", "https://a.test/v1/models"),
            ("https://a.test/v1", messages, "https://a.test/v1/messages", "https://a.test/v1/models"),
            (
                "https://a.test/v1/messages",
                messages,
                "https://a.test/v1/messages",
                "https://a.test/v1/models",
            ),
            ("https://a.test/x/messages", messages, "https://a.test/x/messages", "https://a.test/x/models"),
            (
                "https://a.test/anthropic",
                messages,
                "https://a.test/anthropic/v1/messages",
                "https://a.test/anthropic/v1/models",
            ),
            ("https://v2.test", messages, "https://v2.test/v1/messages", "https://v2.test/v1/models"),
            (
                "https://g.test/v1/team/anthropic",
                messages,
                "https://g.test/v1/team/anthropic/v1/messages",
                "https://g.test/v1/team/anthropic/v1/models",
            ),
        ],
    );
    check(
        Ccr,
        &[(
            "http://10.0.0.1:3456",
            messages,
            "http://10.0.0.1:3456/v1/messages",
            "http://10.0.0.1:3456/v1/models",
        )],
    );
    check(
        Simulator,
        &[("http://simulator", messages, "http://simulator/v1/messages", "http://simulator/v1/models")],
    );
}

#[test]
fn openais_address_may_end_with_version_and_endpoint() {
    let responses = said(Responses, Generate);
    let chat = said(ChatCompletions, Generate);
    check(
        OpenaiResponses,
        &[
            ("https://a.test/v1", responses, "https://a.test/v1/responses", "https://a.test/v1/models"),
            ("https://a.test/v1/", chat, "https://a.test/v1/chat/completions", "https://a.test/v1/models"),
            ("https://a.test", chat, "https://a.test/v1/chat/completions", "https://a.test/v1/models"),
            (
                "https://a.test/api/paas/v4",
                chat,
                "https://a.test/api/paas/v4/chat/completions",
                "https://a.test/api/paas/v4/models",
            ),
            (
                "https://a.test/v1/responses",
                chat,
                "https://a.test/v1/chat/completions",
                "https://a.test/v1/models",
            ),
            (
                "https://a.test/chat/completions",
                chat,
                "https://a.test/chat/completions",
                "https://a.test/models",
            ),
            (
                "https://a.test/v1beta/openai",
                chat,
                "https://a.test/v1beta/openai/chat/completions",
                "https://a.test/v1beta/openai/models",
            ),
            (
                "https://a.test/openai",
                chat,
                "https://a.test/openai/v1/chat/completions",
                "https://a.test/openai/v1/models",
            ),
        ],
    );
}

#[test]
fn geminis_address_may_name_a_version_that_wins() {
    let v1 = gemini("v1", "generateContent", Generate);
    let v1beta = gemini("v1beta", "generateContent", Generate);
    check(
        GeminiApi,
        &[
            (
                "https://a.test",
                v1beta,
                "https://a.test/v1beta/models/some-model:generateContent",
                "https://a.test/v1beta/models",
            ),
            (
                "https://a.test",
                v1,
                "https://a.test/v1/models/some-model:generateContent",
                "https://a.test/v1beta/models",
            ),
            (
                "https://a.test/v1beta/",
                v1,
                "https://a.test/v1beta/models/some-model:generateContent",
                "https://a.test/v1beta/models",
            ),
            (
                "https://a.test/v1/models",
                v1beta,
                "https://a.test/v1/models/some-model:generateContent",
                "https://a.test/v1/models",
            ),
        ],
    );
}

#[test]
fn azures_address_may_go_on_after_the_resource() {
    let responses = said(Responses, Generate);
    let chat = said(ChatCompletions, Generate);
    check(
        AzureOpenai,
        &[
            (
                "https://a.test",
                chat,
                "https://a.test/openai/deployments/some-model/chat/completions?api-version=2024-10-21",
                "https://a.test/openai/models?api-version=2024-10-21",
            ),
            (
                "https://openai.test/openai/",
                responses,
                "https://openai.test/openai/responses?api-version=2025-04-01-preview",
                "https://openai.test/openai/models?api-version=2024-10-21",
            ),
            (
                "https://a.test/openai/v1",
                chat,
                "https://a.test/openai/deployments/some-model/chat/completions?api-version=2024-10-21",
                "https://a.test/openai/models?api-version=2024-10-21",
            ),
            (
                "https://a.test/team/openai/deployments/gpt",
                chat,
                "https://a.test/team/openai/deployments/some-model/chat/completions?api-version=2024-10-21",
                "https://a.test/team/openai/models?api-version=2024-10-21",
            ),
        ],
    );
}

#[test]
fn each_operation_has_its_path() {
    let all_gemini = [
        gemini("v1beta", "streamGenerateContent", Generate),
        gemini("v1beta", "countTokens", CountTokens),
        gemini("v1beta", "batchEmbedContents", Embed),
    ];
    let gemini_paths = [
        "/v1beta/models/some-model:streamGenerateContent",
        "/v1beta/models/some-model:countTokens",
        "/v1beta/models/some-model:batchEmbedContents",
    ];
    for (kind, paths) in [
        (ClaudeConsole, vec![(said(Messages, CountTokens), "/v1/messages/count_tokens")]),
        (Ccr, vec![(said(Messages, CountTokens), "/v1/messages/count_tokens")]),
        (OpenaiResponses, vec![(said(ChatCompletions, Embed), "/v1/embeddings")]),
        (AzureOpenai, vec![(said(ChatCompletions, Embed), "/openai/deployments/some-model/embeddings")]),
        (GeminiApi, all_gemini.into_iter().zip(gemini_paths).collect()),
        (Simulator, {
            let others = [
                (said(Messages, CountTokens), "/v1/messages/count_tokens"),
                (said(ChatCompletions, Generate), "/v1/chat/completions"),
                (said(ChatCompletions, Embed), "/v1/embeddings"),
                (said(Responses, Generate), "/v1/responses"),
            ];
            all_gemini.into_iter().zip(gemini_paths).chain(others).collect()
        }),
    ] {
        for (call, path) in paths {
            let request = built(&account(kind, "https://a.test"), "s", call).unwrap();
            assert_eq!(request.uri().path(), path, "{kind}");
        }
    }
}

#[test]
fn queries_go_on_without_the_clients_key() {
    let messages = said(Messages, Generate);
    let chat = said(ChatCompletions, Generate);
    let stream = gemini("v1beta", "streamGenerateContent", Generate);
    for (kind, call, query, expected) in [
        (ClaudeConsole, messages, "beta=true", Some("beta=true")),
        (ClaudeConsole, messages, "key=cr_1&beta=true&key=cr_2", Some("beta=true")),
        (ClaudeConsole, messages, "key=cr_1", None),
        (ClaudeConsole, messages, "", None),
        (ClaudeConsole, messages, "&&a&b=%20&monkey=1", Some("a&b=%20&monkey=1")),
        (GeminiApi, stream, "alt=sse&key=cr_1", Some("alt=sse")),
        (GeminiApi, stream, "alt=sse&prettyPrint=false&alt=json", Some("alt=sse&prettyPrint=false&alt=json")),
        (GeminiApi, stream, "fields=candidates&$fields=candidates&%66ields=a&alt=sse", Some("alt=sse")),
        (GeminiApi, stream, "alt=proto&$alt=proto&alt=s%73e&%24alt=media&callback=a&access_token=b", None),
        (OpenaiResponses, chat, "api%2Dversion=1&k%65y=cr_1&a=1", Some("a=1")),
        (OpenaiResponses, chat, "api-version=2024-02-01&a=1", Some("a=1")),
        (Simulator, stream, "alt=sse&key=cr_1", Some("alt=sse")),
        (AzureOpenai, chat, "api-version=1999-01-01&key=cr_1&a=1", Some("api-version=2024-10-21&a=1")),
    ] {
        let request =
            built(&account(kind, "https://a.test"), "s", Said { query: Some(query), ..call }).unwrap();
        assert_eq!(request.uri().query(), expected, "{kind} {query}");
    }
    let dated = Account { api_version: Some("2023 &x".to_owned()), ..account(AzureOpenai, "https://a.test") };
    assert_eq!(built(&dated, "s", chat).unwrap().uri().query(), Some("api-version=2023%20%26x"));
    assert_eq!(probed(&dated, "s").uri().query(), Some("api-version=2023%20%26x"));
}

#[test]
fn a_model_name_leads_nowhere_else() {
    let generate = gemini("v1beta", "generateContent", Generate);
    let chat = said(ChatCompletions, Generate);
    for (kind, call, model, expected) in [
        (GeminiApi, generate, "tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        (GeminiApi, generate, "models/gemini-3", "/v1beta/models/gemini-3:generateContent"),
        (GeminiApi, generate, "files?x=/y", "/v1beta/models/files%3Fx%3D%2Fy:generateContent"),
        (GeminiApi, generate, "../../x", "/v1beta/models/..%2F..%2Fx:generateContent"),
        (GeminiApi, generate, "tunedModels/../x", "/v1beta/tunedModels/..%2Fx:generateContent"),
        (GeminiApi, generate, "a:b", "/v1beta/models/a%3Ab:generateContent"),
        (GeminiApi, generate, "größe #1", "/v1beta/models/gr%C3%B6%C3%9Fe%20%231:generateContent"),
        (AzureOpenai, chat, "my gpt/4?", "/openai/deployments/my%20gpt%2F4%3F/chat/completions"),
        (Simulator, generate, "sim-a/b", "/v1beta/models/sim-a%2Fb:generateContent"),
    ] {
        let request = built(&account(kind, "https://a.test"), "s", Said { model, ..call }).unwrap();
        assert_eq!(request.uri().path(), expected, "{kind} {model}");
    }
}
