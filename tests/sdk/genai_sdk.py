"""Google's SDK through the relay: answers, streams, tools, counting, embeddings, models, errors, cancelling."""

from expect import BASE_URL, KEY, TEXT, equal, raises
from google import genai
from google.genai import errors, types

ASK = "What is up?"


def client(prefix="", key=KEY, **options):
    retry = types.HttpRetryOptions(attempts=1)
    return genai.Client(
        api_key=key,
        http_options=types.HttpOptions(base_url=BASE_URL + prefix, retry_options=retry, timeout=60_000, **options),
    )


def answers(google, model):
    reply = google.models.generate_content(model=model, contents=ASK)
    equal(reply.text, TEXT)
    equal((reply.usage_metadata.prompt_token_count, reply.usage_metadata.thoughts_token_count), (65, 4))
    chunks = list(google.models.generate_content_stream(model=model, contents=ASK))
    equal("".join(chunk.text or "" for chunk in chunks), TEXT)


def tools(google):
    declaration = types.FunctionDeclaration(name="get_weather", description="Weather")
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declaration])])
    reply = google.models.generate_content(model="m-tool", contents=ASK, config=config)
    equal((reply.function_calls[0].name, reply.function_calls[0].args), ("get_weather", {"city": "Paris"}))
    chunks = list(google.models.generate_content_stream(model="m-tool", contents=ASK, config=config))
    equal(chunks[-1].function_calls[0].args, {"city": "Paris"})


def fails(google):
    generate = lambda model: lambda: google.models.generate_content(model=model, contents=ASK)
    equal(raises(errors.ClientError, generate("fail-429"), 429).status, "RESOURCE_EXHAUSTED")
    equal(raises(errors.ClientError, generate("fail-400"), 400).status, "INVALID_ARGUMENT")
    equal(raises(errors.ClientError, generate("fail-404"), 404).status, "NOT_FOUND")
    equal(raises(errors.ServerError, generate("fail-503"), 503).status, "UNAVAILABLE")
    wrong = client(key="cr_" + "0" * 64)
    refused = raises(errors.ClientError, lambda: wrong.models.generate_content(model="m", contents=ASK), 401)
    equal(refused.status, "UNAUTHENTICATED")
    for model in ["broken", "midway"]:
        stream = google.models.generate_content_stream(model=model, contents=ASK)
        raises(errors.ServerError, lambda: list(stream))


def cancels(google):
    stream = google.models.generate_content_stream(model="slow", contents=ASK)
    next(iter(stream))
    stream.close()
    google.close()


google = client()
answers(google, "m-v1-default")
answers(client(api_version="v1beta"), "m-v1beta")
answers(client("/gemini"), "m-gemini")
answers(client("/gemini", api_version="v1beta"), "m-gemini-v1beta")
tools(google)
equal(google.models.count_tokens(model="m-count", contents=ASK).total_tokens, 65)
equal(google.models.embed_content(model="m-embed", contents=ASK).embeddings[0].values, [0.5, -0.25])
assert "models/m-listed" in [model.name for model in google.models.list(config={"page_size": 1000})]
fails(google)
cancels(client())
