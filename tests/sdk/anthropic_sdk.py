"""Anthropic's SDK through the relay: answers, streams, tools, typed errors, cancelling."""

import anthropic
from anthropic import Anthropic
from expect import BASE_URL, KEY, TEXT, equal, raises

ASK = {"max_tokens": 64, "messages": [{"role": "user", "content": "What is up?"}]}
TOOL = {"name": "get_weather", "description": "Weather", "input_schema": {"type": "object", "properties": {}}}


def client(prefix="", key=KEY, **options):
    return Anthropic(base_url=BASE_URL + prefix, api_key=key, max_retries=0, timeout=60, **options)


def answers(claude, model):
    message = claude.messages.create(model=model, **ASK)
    equal(message.content[0].text, TEXT)
    equal((message.usage.input_tokens, message.usage.output_tokens), (25, 15))
    with claude.messages.stream(model=model, **ASK) as stream:
        equal("".join(stream.text_stream), TEXT)
        equal(stream.get_final_message().usage.output_tokens, 15)


def tools(claude):
    message = claude.messages.create(model="m-tool", tools=[TOOL], **ASK)
    equal((message.stop_reason, message.content[0].name, message.content[0].input), ("tool_use", "get_weather", {"city": "Paris"}))
    with claude.messages.stream(model="m-tool-stream", tools=[TOOL], **ASK) as stream:
        equal(stream.get_final_message().content[0].input, {"city": "Paris"})


def errors(claude):
    create = lambda model: lambda: claude.messages.create(model=model, **ASK)
    limited = raises(anthropic.RateLimitError, create("fail-429"), 429)
    assert 1 <= int(limited.response.headers["retry-after"]) <= 7, limited.response.headers
    overloaded = raises(anthropic._exceptions.OverloadedError, create("fail-529"), 529)
    equal(overloaded.body["error"]["type"], "overloaded_error")
    raises(anthropic.BadRequestError, create("fail-400"), 400)
    raises(anthropic.NotFoundError, create("fail-404"), 404)
    raises(anthropic.AuthenticationError, lambda: client(key="cr_" + "0" * 64).messages.create(model="m", **ASK), 401)
    for model in ["broken", "midway"]:
        with claude.messages.stream(model=model, **ASK) as stream:
            raises(anthropic.APIStatusError, lambda: list(stream))


def cancels(claude):
    with claude.messages.create(model="slow", stream=True, **ASK) as stream:
        equal(next(iter(stream)).type, "message_start")


claude = client()
answers(claude, "m-bearer")
for prefix in ["/api", "/claude"]:
    answers(client(prefix), "m" + prefix.replace("/", "-"))
answers(client(key=None, default_headers={"x-api-key": KEY}), "m-x-api-key")
tools(claude)
equal(claude.messages.count_tokens(model="m-count", messages=ASK["messages"]).input_tokens, 65)
assert "m-listed" in [model.id for model in claude.models.list()]
errors(claude)
cancels(claude)
