"""Chat requests of 1 MB as OpenAI's clients send them."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

MEGABYTE = 1_000_000
_SENTENCE = (
    "The quick brown fox jumps over the lazy dog, and what it says is \u201cgr\u00fcezi\u201d.\n"
)
_PNG = b"\x89PNG\r\n\x1a\n"
_TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the files.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}


def conversation(messages: int, size: int = MEGABYTE) -> bytes:
    """So many messages, about `size` bytes: questions, calls of a tool, results and answers."""
    text = _SENTENCE * max(1, size // messages // len(_SENTENCE.encode()))
    system = {"role": "system", "content": "You are a helpful assistant."}
    turns = islice(_turns(text), messages - 1)
    return _request([system, *turns], tools=[_TOOL])


def _turns(text: str) -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        number += 1
        identity = f"call_{number:024}"
        arguments = orjson.dumps({"query": text}).decode()
        call = {"name": "search", "arguments": arguments}
        yield {"role": "user", "content": text}
        yield {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": identity, "type": "function", "function": call}],
        }
        yield {"role": "tool", "tool_call_id": identity, "content": text}
        yield {"role": "assistant", "content": text}


def image(size: int = MEGABYTE) -> bytes:
    """One question about one image of about `size` bytes in base64."""
    data = base64.b64encode(_PNG + random.Random(1).randbytes(size * 3 // 4))
    url = f"data:image/png;base64,{data.decode()}"
    question = {"type": "text", "text": "What is on it?"}
    parts = [question, {"type": "image_url", "image_url": {"url": url}}]
    return _request([{"role": "user", "content": parts}])


def _request(messages: list[dict[str, Any]], **more: object) -> bytes:
    body = {"model": "gpt-4o", "messages": messages, "temperature": 0.5, "max_tokens": 256, **more}
    return orjson.dumps(body)
