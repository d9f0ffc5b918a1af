"""The events of a streamed response, in OpenAI's order and numbered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kong_ai_proxy.gateway.provider import text
from kong_ai_proxy.gateway.provider.chat import written_pieces
from kong_ai_proxy.gateway.provider.http import Json


def events(begun: Json, final: Json) -> Iterator[tuple[str, Json]]:
    """Every event of a response from `begun` to `final`, with its name."""
    for number, event in enumerate(_events(begun, final)):
        yield event["type"], {**event, "sequence_number": number}


def _events(begun: Json, final: Json) -> Iterator[Json]:
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for place, item in enumerate(final["output"]):
        at = {"output_index": place}
        opened = {**item, "status": "in_progress", **_emptied(item)}
        yield {"type": "response.output_item.added", **at, "item": opened}
        within = {**at, "item_id": item["id"]}
        yield from _message(item, within) if item["type"] == "message" else _call(item, within)
        yield {"type": "response.output_item.done", **at, "item": item}
    yield {"type": f"response.{final['status']}", "response": final}


def _emptied(item: Json) -> Json:
    empty: dict[str, Any] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "custom_tool_call": {"input": ""},
    }
    return dict(empty[item["type"]])


def _message(item: Json, within: Json) -> Iterator[Json]:
    part = item["content"][0]
    at = {**within, "content_index": 0}
    opened = {**part, "text": "", "logprobs": []}
    yield {"type": "response.content_part.added", **at, "part": opened}
    for number, piece in enumerate(text.tokens(part["text"])):
        logprobs = part["logprobs"][number : number + 1]
        delta = {"delta": piece, "logprobs": logprobs}
        yield {"type": "response.output_text.delta", **at, **delta}
    whole = {"text": part["text"], "logprobs": part["logprobs"]}
    yield {"type": "response.output_text.done", **at, **whole}
    yield {"type": "response.content_part.done", **at, "part": part}


def _call(item: Json, within: Json) -> Iterator[Json]:
    function = item["type"] == "function_call"
    filled = "arguments" if function else "input"
    kind = "response.function_call_arguments" if function else "response.custom_tool_call_input"
    for piece in written_pieces(item[filled]):
        yield {"type": f"{kind}.delta", **within, "delta": piece}
    name = {"name": item["name"]} if function else {}
    yield {"type": f"{kind}.done", **within, **name, filled: item[filled]}
