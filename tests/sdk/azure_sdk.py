"""OpenAI's SDK in its Azure form through the relay."""

import openai
from expect import BASE_URL, KEY, TEXT, equal, raises
from openai import AzureOpenAI

MESSAGES = [{"role": "user", "content": "What is up?"}]


def client(key=KEY, **place):
    return AzureOpenAI(api_key=key, api_version="2024-10-21", max_retries=0, timeout=60, **place)


def chats(azure):
    equal(azure.chat.completions.create(model="m-azure", messages=MESSAGES).choices[0].message.content, TEXT)
    chunks = azure.chat.completions.create(model="m-azure", messages=MESSAGES, stream=True)
    equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), TEXT)


azure = client(azure_endpoint=BASE_URL)
chats(azure)
equal(azure.embeddings.create(model="m-azure-embed", input="hi").data[0].embedding, [0.5, -0.25])
chats(client(base_url=BASE_URL + "/azure"))
wrong = client(key="cr_" + "0" * 64, azure_endpoint=BASE_URL)
raises(openai.AuthenticationError, lambda: wrong.chat.completions.create(model="m-azure", messages=MESSAGES), 401)
