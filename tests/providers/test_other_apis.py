"""The stand-ins for OpenAI, Mistral, Cohere, Hugging Face and Ollama: official clients are content
with them, and they refuse what is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import cohere
import openai
from huggingface_hub import InferenceClient
from mistralai.client import Mistral

from tests import providers
from tests.providers import ToolCall, Turn, Upstream

Json = dict[str, Any]

ASKED: Any = [{"role": "user", "content": "1 + 1?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    }
]
CALLS = [ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2})]


def _answered(first: str, content: Any = "2") -> list[Json]:
    """A conversation in which a call with the id `first` was answered."""
    call = {"id": first, "type": "function", "function": {"name": "add", "arguments": "{}"}}
    return [
        *ASKED,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": first, "content": content},
    ]


async def _post(upstream: Upstream, path: str, body: Json, key: str = "Bearer k") -> int:
    headers = {"Authorization": key} if key else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(upstream.url + path, json=body) as response,
    ):
        await response.read()
        return response.status


async def _refuses(
    upstream: Upstream, path: str, right: Json, *wrong: Json, status: int = 400
) -> None:
    """The right body is answered, each wrong one is refused and so noted."""
    assert await _post(upstream, path, right) == 200, upstream.failures
    for number, change in enumerate(wrong, 1):
        body = {name: value for name, value in {**right, **change}.items() if value != "-"}
        assert await _post(upstream, path, body) == status, change
        assert len(upstream.failures) == number
    assert await _post(upstream, path + "x", right) == 404


# ---- OpenAI


async def test_the_openai_client() -> None:
    async with (
        providers.openai() as upstream,
        openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="k", max_retries=0) as client,
    ):
        upstream.script(text="Hm.", tool_calls=CALLS, piece=7, encoding="br")
        chat: Any = {"model": "gpt-4o", "messages": ASKED, "tools": TOOLS}
        whole = await client.chat.completions.create(**chat)
        assert len(whole.choices[0].message.tool_calls or ()) == 2
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [chunk async for chunk in await client.chat.completions.create(**chat)]
        assert chunks[-1].usage
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
        embedded = await client.embeddings.create(model="m", input=["a", "b"], dimensions=4)
        assert [len(each.embedding) for each in embedded.data] == [4, 4]
        text = await client.completions.create(model="m", prompt="Hi", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in text]) == "Hm."
        assert upstream.failures == []


async def test_openai_refuses() -> None:
    right: Json = {"model": "gpt-4o", "messages": _answered("call_1"), "tools": TOOLS}
    async with providers.openai() as upstream:
        await _refuses(
            upstream,
            "/v1/chat/completions",
            right,
            {"top_k": 1},
            {"messages": []},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]},
            {"messages": _answered("call_1")[:2]},
            {"messages": [*ASKED, _answered("call_1")[2]]},
            {"temperature": 2.5},
            {"temperature": "1"},
            {"stream_options": {"include_usage": True}},
            {"model": "o3", "max_tokens": 5},
            {"tools": [], "model": "gpt-4o"},
            {"tools": "-", "tool_choice": "auto"},
        )
        assert await _post(upstream, "/v1/chat/completions", right, key="") == 401


async def test_providers_that_copy_openai_differ() -> None:
    right: Json = {"model": "m", "messages": ASKED, "stream": True}
    path = "/serving-endpoints/chat/completions"
    async with providers.openai(refuses=["stream_options"]) as upstream:
        await _refuses(upstream, path, right, {"stream_options": {"include_usage": True}})
    async with providers.openai(takes={"top_k": int}, reasoning="reasoning_content") as upstream:
        past = [*ASKED, {"role": "assistant", "content": "2", "reasoning_content": "Hm."}, *ASKED]
        right = {"model": "m", "messages": past, "top_k": 3}
        await _refuses(upstream, path, right, {"top_k": "x"}, {"top_n": 1})


async def test_azure_has_the_model_in_the_path() -> None:
    async with providers.openai() as upstream:
        path = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
        assert await _post(upstream, path, {"messages": ASKED}) == 200
        assert upstream.requests[0].params == {"api-version": "2024-10-21"}


# ---- Mistral


async def test_the_mistral_client() -> None:
    async with providers.mistral() as upstream:
        async with Mistral(server_url=upstream.url, api_key="k") as client:
            upstream.script(thinking="Hm.", tool_calls=CALLS, piece=7, encoding="gzip")
            chat: Any = {"model": "m", "messages": ASKED, "tools": TOOLS, "random_seed": 1}
            whole = await client.chat.complete_async(**chat)
            assert whole.choices[0].finish_reason == "tool_calls"
            stream = await client.chat.stream_async(**chat)
            events = [event.data async for event in stream]
            assert len(events[-1].choices[0].delta.tool_calls or ()) == 2
            embedded = await client.embeddings.create_async(model="m", inputs=["a", "b"])
            assert len(embedded.data) == 2
        assert upstream.failures == []


async def test_mistral_refuses() -> None:
    right: Json = {"model": "m", "messages": _answered("abcdefgh1"), "tools": TOOLS}
    async with providers.mistral() as upstream:
        await _refuses(
            upstream,
            "/v1/chat/completions",
            right,
            {"seed": 1},
            {"stream_options": {"include_usage": True}},
            {"logit_bias": {}},
            {"messages": _answered("call_abcdef")},
            {"messages": _answered("abcdefgh1")[:2]},
            {"messages": [{"role": "developer", "content": "x"}]},
            {"messages": [*ASKED, {"role": "assistant", "content": "x"}]},
            {"messages": "-"},
            status=422,
        )


# ---- Cohere


async def test_the_cohere_client() -> None:
    async with providers.cohere() as upstream:
        async with cohere.AsyncClientV2(base_url=upstream.url, api_key="k") as client:
            upstream.script(text="Plan.", tool_calls=CALLS, piece=7, encoding="gzip")
            chat: Any = {"model": "m", "messages": ASKED, "tools": TOOLS}
            whole = await client.chat(**chat)
            assert whole.finish_reason == "TOOL_CALL"
            kinds = [event.type async for event in client.chat_stream(**chat)]
            assert kinds.count("tool-call-start") == 2
            assert kinds[-1] == "message-end"
            embed = await client.embed(model="m", texts=["a", "b"], input_type="search_query")
            assert embed.embeddings.float_
            ranked = await client.rerank(model="m", query="q", documents=["a", "b"], top_n=1)
            assert len(ranked.results) == 1
        async with cohere.AsyncClient(base_url=upstream.url, api_key="k") as old:
            upstream.script(text="One two.")
            assert (await old.generate(prompt="Hi")).generations[0].text == "One two."
            events = [event async for event in old.generate_stream(prompt="Hi")]
            assert events[-1].is_finished
        assert upstream.failures == []


async def test_cohere_refuses() -> None:
    right: Json = {"model": "m", "messages": _answered("add_1"), "tools": TOOLS}
    async with providers.cohere() as upstream:
        await _refuses(
            upstream,
            "/v2/chat",
            right,
            {"top_p": 0.5},
            {"stop": ["a"]},
            {"model": "-"},
            {"messages": [{"content": "no role"}]},
            {"messages": [{"role": "developer", "content": "x"}]},
            {"messages": _answered("add_1")[:2]},
            {"messages": _answered("add_1")[2:]},
            {"p": 1},
            {"tool_choice": "auto"},
            {"response_format": {"type": "json_schema"}},
            {"tools": [{"type": "function", "function": {"name": "a"}}]},
        )
    async with providers.cohere() as upstream:
        right = {"model": "m", "texts": ["a"], "input_type": "search_query"}
        await _refuses(upstream, "/v2/embed", right, {"input": ["a"]}, {"input_type": "-"})


# ---- Hugging Face


async def test_the_huggingface_client() -> None:
    def use(url: str) -> None:
        client = InferenceClient(base_url=url, api_key="k")
        whole = client.chat_completion(ASKED, tools=TOOLS)
        assert len(whole.choices[0].message.tool_calls or ()) == 2
        *_, last = client.chat_completion(ASKED, tools=TOOLS, stream=True)
        assert last.choices[0].finish_reason == "tool_calls"
        text = InferenceClient(model=url, api_key="k")
        assert text.text_generation("Hi", max_new_tokens=3, details=True).details
        assert "".join(text.text_generation("Hi", stream=True)) == "Hm. Well."

    async with providers.huggingface() as upstream:
        upstream.script(text="Hm. Well.", tool_calls=CALLS, piece=7)
        await asyncio.to_thread(use, upstream.url)
        assert upstream.failures == []


async def test_huggingface_refuses() -> None:
    right: Json = {"model": "m", "messages": _answered("0"), "tools": TOOLS}
    async with providers.huggingface() as upstream:
        await _refuses(
            upstream,
            "/v1/chat/completions",
            right,
            {"stop": "a"},
            {"max_completion_tokens": 5},
            {"messages": []},
            {"messages": _answered("0")[:2]},
            {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
            {"top_p": 1},
            status=422,
        )
    async with providers.huggingface() as upstream:
        wrong: list[Json] = [{"inputs": "-"}, {"parameters": {"max_tokens": 5}}, {"prompt": "x"}]
        right = {"inputs": "Hi", "parameters": {"max_new_tokens": 3}}
        await _refuses(upstream, "/generate", right, *wrong, status=422)
    async with providers.huggingface() as upstream:
        path = "/hf-inference/models/BAAI/bge-m3/pipeline/feature-extraction"
        right = {"inputs": ["a", "b"]}
        await _refuses(upstream, path, right, {"inputs": "-", "input": ["a"]}, status=422)


# ---- Ollama


async def _lines(upstream: Upstream, path: str, body: Json) -> list[Json]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url + path, json=body) as response,
    ):
        assert response.content_type == "application/x-ndjson"
        return [json.loads(line) async for line in response.content]


async def test_ollama_streams_unless_told_not_to() -> None:
    async with providers.ollama() as upstream:
        upstream.script(thinking="Hm.", text="One two.", tool_calls=CALLS)
        body = {"model": "m", "messages": ASKED, "tools": TOOLS}
        lines = await _lines(upstream, "/api/chat", body)
        assert "".join(line["message"]["content"] for line in lines) == "One two."
        assert [line["done"] for line in lines][-2:] == [False, True]
        upstream.script(Turn(text="One two."))
        lines = await _lines(upstream, "/api/generate", {"model": "m", "prompt": "Hi"})
        assert "".join(line["response"] for line in lines) == "One two."
        assert await _post(upstream, "/api/embed", {"model": "m", "input": ["a"]}) == 200
        assert upstream.failures == []


async def test_ollama_refuses() -> None:
    right: Json = {"model": "m", "messages": ASKED, "stream": False, "options": {"top_k": 3}}
    async with providers.ollama() as upstream:
        await _refuses(
            upstream,
            "/api/chat",
            right,
            {"temperature": 1},
            {"options": {"max_tokens": 5}},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            {"messages": [{"role": "user", "content": "a", "images": ["data:image/png;base64,a"]}]},
            {"messages": [{"role": "developer", "content": "a"}]},
            {"model": "-"},
        )
        call = {"function": {"name": "add", "arguments": "{}"}}
        past = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}]
        assert await _post(upstream, "/api/chat", {**right, "messages": past}) == 400
