"""OpenAI's SDK through the relay: Chat Completions, Responses, embeddings, models, typed errors, cancelling."""

import openai
from expect import BASE_URL, KEY, TEXT, equal, raises
from openai import OpenAI

MESSAGES = [{"role": "user", "content": "What is up?"}]
FUNCTION = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}
ARGUMENTS = '{"city":"Paris"}'


def client(prefix="/v1", key=KEY):
    return OpenAI(base_url=BASE_URL + prefix, api_key=key, max_retries=0, timeout=60)


def chats(ai, model):
    reply = ai.chat.completions.create(model=model, messages=MESSAGES)
    equal(reply.choices[0].message.content, TEXT)
    equal((reply.usage.prompt_tokens, reply.usage.completion_tokens), (65, 15))
    chunks = list(ai.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks), TEXT)
    assert all(chunk.usage is None for chunk in chunks), "a usage chunk that was not asked for"
    options = {"include_usage": True}
    chunks = list(ai.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=options))
    equal((chunks[-1].choices, chunks[-1].usage.total_tokens), ([], 80))


def responds(ai, model):
    reply = ai.responses.create(model=model, input="What is up?")
    equal((reply.output_text, reply.usage.total_tokens), (TEXT, 80))
    events = list(ai.responses.create(model=model, input="What is up?", stream=True))
    equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), TEXT)
    equal(events[-1].response.usage.output_tokens_details.reasoning_tokens, 4)


def tools(ai):
    chat_tool = {"type": "function", "function": FUNCTION}
    reply = ai.chat.completions.create(model="m-tool", messages=MESSAGES, tools=[chat_tool])
    equal(reply.choices[0].message.tool_calls[0].function.arguments, ARGUMENTS)
    chunks = ai.chat.completions.create(model="m-tool", messages=MESSAGES, tools=[chat_tool], stream=True)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    equal("".join(call.function.arguments for call in calls), ARGUMENTS)
    tool = {"type": "function", "strict": False, **FUNCTION}
    equal(ai.responses.create(model="m-tool", input="hi", tools=[tool]).output[0].arguments, ARGUMENTS)
    with ai.responses.stream(model="m-tool", input="hi", tools=[tool]) as stream:
        equal(stream.get_final_response().output[0].arguments, ARGUMENTS)


def errors(ai):
    chat = lambda model: lambda: ai.chat.completions.create(model=model, messages=MESSAGES)
    respond = lambda model: lambda: ai.responses.create(model=model, input="hi")
    for create in [chat, respond]:
        limited = raises(openai.RateLimitError, create("fail-429"), 429)
        assert 1 <= int(limited.response.headers["retry-after"]) <= 7, limited.response.headers
        raises(openai.BadRequestError, create("fail-400"), 400)
        equal(raises(openai.NotFoundError, create("fail-404"), 404).code, "model_not_found")
        raises(openai.InternalServerError, create("fail-503"), 503)
    wrong = client(key="cr_" + "0" * 64)
    raises(openai.AuthenticationError, lambda: wrong.responses.create(model="m", input="hi"), 401)
    raises(openai.AuthenticationError, lambda: wrong.models.list(), 401)
    for model in ["broken", "midway"]:
        stream = ai.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        raises(openai.APIError, lambda: list(stream))
    events = list(ai.responses.create(model="midway", input="hi", stream=True))
    equal(events[-1].type, "response.failed")
    try:
        events = list(ai.responses.create(model="broken", input="hi", stream=True))
    except openai.APIError:
        return
    assert events[-1].type in ["response.failed", "error"], events[-1]


def cancels(ai):
    with ai.chat.completions.create(model="slow", messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    with ai.responses.create(model="slow", input="hi", stream=True) as stream:
        equal(next(iter(stream)).type, "response.created")


ai = client()
for prefix in ["/v1", "/openai/v1", "/openai"]:
    chats(client(prefix), "m" + prefix.replace("/", "-"))
    responds(client(prefix), "m-responses" + prefix.replace("/", "-"))
tools(ai)
equal(ai.embeddings.create(model="m-embed", input="hi").data[0].embedding, [0.5, -0.25])
assert "m-listed" in [model.id for model in ai.models.list()]
equal(ai.models.retrieve("m-listed").id, "m-listed")
errors(ai)
cancels(ai)
