"""The Gemini and Vertex stand-ins: google-genai is content with them, and they refuse what is
wrong."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import errors, types

from tests import providers
from tests.providers import ToolCall
from tests.providers.gemini_api import Gemini, Vertex

# google-genai derives from aiohttp's session, of which aiohttp warns.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")

Json = dict[str, Any]

MODEL = "gemini-2.5-flash"
VERTEX = "/v1/projects/p/locations/l/publishers"
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="add", parameters_json_schema={"type": "object"})
    ]
)
BODY: Json = {
    "systemInstruction": {"parts": [{"text": "Add."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "1 + 1?"}]},
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "add", "args": {"a": 1}}}],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "add", "response": {"result": 2}}}],
        },
    ],
    "tools": [
        {"functionDeclarations": [{"name": "add", "parameters": {"type": "OBJECT"}}]},
    ],
    "generationConfig": {"temperature": 0.5, "maxOutputTokens": 9},
}


@pytest.fixture
async def upstream() -> AsyncIterator[Gemini]:
    async with providers.gemini() as running:
        yield running


@pytest.fixture
async def vertex() -> AsyncIterator[Vertex]:
    async with providers.vertex() as running:
        yield running


@pytest.fixture
async def client(upstream: Gemini) -> AsyncIterator[genai.client.AsyncClient]:
    options = types.HttpOptions(base_url=upstream.url)
    async with genai.Client(api_key="secret", http_options=options).aio as made:
        yield made


async def test_parallel_calls(client: genai.client.AsyncClient, upstream: Gemini) -> None:
    calls = [ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2})]
    upstream.script(thinking="Hm.", text="Let me see.", tool_calls=calls)
    answer = await client.models.generate_content(
        model=MODEL, contents="1 + 1?", config={"tools": [TOOL], "temperature": 0.3}
    )
    assert [call.args for call in answer.function_calls or ()] == [{"a": 1}, {"a": 2}]
    assert upstream.failures == []


async def test_a_stream_in_small_pieces(client: genai.client.AsyncClient, upstream: Gemini) -> None:
    upstream.script(text="One two three.", encoding="gzip", piece=7)
    stream = await client.models.generate_content_stream(model=MODEL, contents="Count.")
    assert "".join([chunk.text or "" async for chunk in stream]) == "One two three."
    assert upstream.failures == []


async def test_embeddings_and_counts(client: genai.client.AsyncClient, upstream: Gemini) -> None:
    answer = await client.models.embed_content(
        model="gemini-embedding-001", contents=["a", "b"], config={"output_dimensionality": 3}
    )
    assert [len(each.values or ()) for each in answer.embeddings or ()] == [3, 3]
    count = await client.models.count_tokens(model=MODEL, contents="a")
    assert count.total_tokens == 11
    assert upstream.failures == []


async def test_a_blocked_prompt(client: genai.client.AsyncClient, upstream: Gemini) -> None:
    upstream.script(text="", finish="content_filter")
    answer = await client.models.generate_content(model=MODEL, contents="x")
    assert answer.prompt_feedback
    assert answer.prompt_feedback.block_reason == "SAFETY"


async def test_a_scripted_status(client: genai.client.AsyncClient, upstream: Gemini) -> None:
    upstream.script(status=429, message="slow down")
    with pytest.raises(errors.ClientError, match=r"RESOURCE_EXHAUSTED.*slow down"):
        await client.models.generate_content(model=MODEL, contents="x")


async def test_vertex_takes_what_its_client_sends(vertex: Vertex) -> None:
    options = types.HttpOptions(base_url=vertex.url)
    async with genai.Client(
        vertexai=True,
        project="p",
        location="l",
        credentials=_Token(),
        http_options=options,
    ).aio as client:
        vertex.script(text="One two.")
        stream = await client.models.generate_content_stream(
            model=MODEL, contents="x", config={"labels": {"team": "a"}, "tools": [TOOL]}
        )
        assert "".join([chunk.text or "" async for chunk in stream]) == "One two."
        embedded = await client.models.embed_content(model="text-embedding-005", contents=["a"])
        assert embedded.embeddings
    assert vertex.failures == []


class _Token(AnonymousCredentials):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """Credentials that never expire."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.token = "token"


async def _post(url: str, **options: Any) -> tuple[int, Any]:
    options = {"headers": {"x-goog-api-key": "secret"}, **options}
    async with aiohttp.ClientSession() as session, session.post(url, **options) as response:
        return response.status, await response.json()


async def test_the_body_that_the_wrong_ones_are_made_of_is_right(
    upstream: Gemini, vertex: Vertex
) -> None:
    path = f"/v1beta/models/{MODEL}:generateContent"
    assert (await _post(upstream.url + path, json=BODY))[0] == 200
    assert (await _post(f"{upstream.url}{path}?key=k", json=BODY, headers={}))[0] == 200
    path = f"{VERTEX}/google/models/{MODEL}:generateContent"
    bearer = {"Authorization": "Bearer token"}
    assert (await _post(vertex.url + path, json=BODY, headers=bearer))[0] == 200
    assert upstream.failures == vertex.failures == []


async def test_a_stream_without_sse_is_a_json_array(upstream: Gemini) -> None:
    upstream.script(text="One two.")
    url = f"{upstream.url}/v1beta/models/{MODEL}:streamGenerateContent"
    _, answer = await _post(url, json=BODY)
    parts = [each["candidates"][0]["content"]["parts"][0]["text"] for each in answer]
    assert parts == ["One", " two."]
    upstream.script(status=503)
    assert (await _post(url, json=BODY))[1][0]["error"]["status"] == "UNAVAILABLE"


async def test_an_error_inside_a_json_array(upstream: Gemini) -> None:
    upstream.script(text="One two.", stream_error="it broke", error_after=1)
    url = f"{upstream.url}/v1beta/models/{MODEL}:streamGenerateContent"
    _, answer = await _post(url, json=BODY)
    assert answer[1]["error"]["message"] == "it broke"


WRONG: dict[str, tuple[Callable[[Json], object], str]] = {
    "unknown member": (lambda body: body.update(messages=[]), "messages"),
    "unknown member of a part": (
        lambda body: body["contents"][0]["parts"][0].update(type="text"),
        "type",
    ),
    "unknown enum": (
        lambda body: body["tools"][0]["functionDeclarations"][0]["parameters"].update(type="dict"),
        "dict is not a valid",
    ),
    "only Vertex": (
        lambda body: body["generationConfig"].update(audioTimestamp=True),
        "audio_timestamp",
    ),
    "role": (lambda body: body["contents"][1].update(role="assistant"), "valid role"),
    "no response": (lambda body: body["contents"].pop(), "nothing answers"),
    "response of nothing": (lambda body: body["contents"].pop(1), "number of function response"),
    "name of a response": (
        lambda body: body["contents"][2]["parts"][0]["functionResponse"].update(name="sub"),
        "named",
    ),
    "two of a part": (lambda body: body["contents"][1]["parts"][0].update(text="x"), "oneof"),
    "no parts": (lambda body: body["contents"][0].update(parts=[]), "must not be empty"),
    "empty system": (lambda body: body["systemInstruction"].update(parts=[]), "system_instruction"),
    "schema alone": (
        lambda body: body["generationConfig"].update(responseSchema={"type": "OBJECT"}),
        "response_mime_type",
    ),
    "six stops": (lambda body: body["generationConfig"].update(stopSequences=["a"] * 6), "up to 5"),
    "function name": (
        lambda body: body["tools"][0]["functionDeclarations"][0].update(name="a b"),
        "invalid name",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_is_refused(upstream: Gemini, name: str) -> None:
    change, expected = WRONG[name]
    body = copy.deepcopy(BODY)
    change(body)
    status, answer = await _post(f"{upstream.url}/v1beta/models/{MODEL}:generateContent", json=body)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert expected in upstream.failures[0]


async def test_gemini_3_wants_thought_signatures(upstream: Gemini) -> None:
    url = f"{upstream.url}/v1beta/models/gemini-3-pro:generateContent"
    assert (await _post(url, json=BODY))[0] == 400
    body = copy.deepcopy(BODY)
    body["contents"][1]["parts"][0]["thoughtSignature"] = "c2lnbmVk"
    assert (await _post(url, json=body))[0] == 200


async def test_a_key_is_required(upstream: Gemini, vertex: Vertex) -> None:
    path = f"/v1beta/models/{MODEL}:generateContent"
    assert (await _post(upstream.url + path, json=BODY, headers={}))[0] == 403
    path = f"{VERTEX}/google/models/{MODEL}:generateContent"
    assert (await _post(vertex.url + path, json=BODY, headers={}))[0] == 401


async def test_claude_on_vertex(vertex: Vertex) -> None:
    body: Json = {
        "anthropic_version": "vertex-2023-10-16",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    url = f"{vertex.url}{VERTEX}/anthropic/models/claude-sonnet-4-6:rawPredict"
    status, answer = await _post(url, json=body)
    assert (status, answer["type"]) == (200, "message")
    status, _ = await _post(url, json={**body, "model": "claude-sonnet-4-6"})
    assert status == 400
