"""OpenAI's own Python package as the judge of what is sent to a provider and to a client."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

_EVENT = TypeAdapter[Any](ResponseStreamEvent)
_REQUEST = {
    True: TypeAdapter[Any](ResponseCreateParamsStreaming),
    False: TypeAdapter[Any](ResponseCreateParamsNonStreaming),
}


def check_request(body: dict[str, Any]) -> None:
    """Every member is OpenAI's, and of its type."""
    known = {**body, "input": [_with_id(item) for item in body["input"]]}
    # Members that the types do not know are gone from what they return; arrays are generators.
    assert _read(_REQUEST[bool(body.get("stream"))].validate_python(known)) == known


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _read(each) for name, each in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_read(each) for each in value]


def _with_id(item: dict[str, Any]) -> dict[str, Any]:
    """The types want ids of the assistant's messages; the API does not, and checks what it gets."""
    if item.get("role") == "assistant" and isinstance(item["content"], list):
        return {"id": "msg_1", "status": "completed", **item}
    return item


def check_answer(value: object) -> Response:
    """A whole answer as the client reads it."""
    return Response.model_validate(value)


def events(written: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each named by its type, valid, and where it belongs."""
    assert written.endswith(b"\n\n")
    found = []
    for number, raw in enumerate(written[:-2].split(b"\n\n")):
        name, data = raw.split(b"\n")
        event = orjson.loads(data.removeprefix(b"data: "))
        _EVENT.validate_python(event)
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == number
        found.append(event)
    _check_order(found)
    return found


_PIECES = {
    "output_text": ("content_index", "text"),
    "refusal": ("content_index", "refusal"),
    "reasoning_summary_text": ("summary_index", "text"),
    "reasoning_text": ("content_index", "text"),
    "function_call_arguments": ("", "arguments"),
    "custom_tool_call_input": ("", "input"),
}
"""What comes in pieces: which part of its item it is, and where all of it is told."""


class _Item:
    """An output item under way: what of it is open, and what its pieces make."""

    def __init__(self, item: dict[str, Any]) -> None:
        self.id, self.type = item.get("id"), item["type"]
        self.parts = 0
        self.open = self.is_told = self.is_done = False
        self.text = ""

    def take(self, name: str, event: dict[str, Any]) -> None:
        assert not self.is_done
        assert event.get("item_id", self.id) == self.id
        kind, _, step = name.rpartition(".")
        if kind in ("content_part", "reasoning_summary_part"):
            self._part(step, event)
        elif kind in _PIECES:
            self._piece(kind, step, event)
        elif name == "output_item.done":
            assert (event["item"].get("id"), event["item"]["type"]) == (self.id, self.type)
            assert self.is_told or self.type not in ("function_call", "custom_tool_call")
            self.is_done = not self.open

    def _part(self, step: str, event: dict[str, Any]) -> None:
        index = "content_index" if "content_index" in event else "summary_index"
        assert event[index] == self.parts
        assert self.open == (step == "done")
        part = event["part"]
        told = part["refusal"] if part["type"] == "refusal" else part["text"]
        assert told == (self.text if self.open else "")
        assert self.is_told == self.open
        self.open, self.text, self.parts = not self.open, "", self.parts + self.open
        self.is_told = False

    def _piece(self, kind: str, step: str, event: dict[str, Any]) -> None:
        index, whole = _PIECES[kind]
        assert not index or (self.open and event[index] == self.parts)
        if step == "delta":
            self.text += event["delta"]
        else:
            assert event[whole] == self.text
            self.is_told = True


def _check_order(found: list[dict[str, Any]]) -> None:
    """Items one after the other, events within their items, parts one after the other, and all
    pieces together what is told at the end."""
    items: list[_Item] = []
    for event in found:
        name = event["type"].removeprefix("response.")
        if name == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(_Item(event["item"]))
        elif "output_index" in event:
            items[event["output_index"]].take(name, event)
    last = found[-1]
    if last["type"] in ("response.completed", "response.incomplete"):
        assert all(item.is_done for item in items)
        assert [item.get("id") for item in last["response"]["output"]] == [i.id for i in items]


def client(written: bytes) -> OpenAI:
    """A client of a server that answers with this stream."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=written)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return OpenAI(api_key="none", base_url="http://api.test/v1", http_client=transport)


def accumulated(written: bytes) -> list[dict[str, Any]]:
    """The output items that the client puts together of the pieces alone, and checks against the
    response at the end."""
    events(written)
    items: dict[int, dict[str, Any]] = {}
    with (
        client(written) as server,
        server.responses.stream(model="asked", input="Hi") as stream,
    ):
        for event in stream:
            _grow(items, event.model_dump(warnings=False))
        stream.get_final_response()
    return [items[index] for index in sorted(items)]


def _grow(items: dict[int, dict[str, Any]], event: dict[str, Any]) -> None:
    index = event.get("output_index", -1)
    match event["type"]:
        case "response.output_item.added":
            assert index == len(items)
            items[index] = {"type": event["item"]["type"], "parts": {}, "open": True}
        case "response.output_text.delta" | "response.refusal.delta":
            _piece(items[index], event["content_index"], event["delta"])
        case "response.reasoning_summary_text.delta":
            _piece(items[index], event["summary_index"], event["delta"])
        case "response.function_call_arguments.delta":
            _piece(items[index], 0, event["delta"])
        case "response.output_item.done":
            assert items[index].pop("open")
            items[index]["item"] = event["item"]


def _piece(item: dict[str, Any], part: int, text: str) -> None:
    assert item["open"]
    item["parts"][part] = item["parts"].get(part, "") + text
