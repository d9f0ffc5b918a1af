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
    """The events of a stream, each named by its type and valid, in order."""
    assert written.endswith(b"\n\n")
    found = []
    for number, raw in enumerate(written[:-2].split(b"\n\n")):
        name, data = raw.split(b"\n")
        event = orjson.loads(data.removeprefix(b"data: "))
        _EVENT.validate_python(event)
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == number
        found.append(event)
    return found


def client(written: bytes) -> OpenAI:
    """A client of a server that answers with this stream."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=written)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return OpenAI(api_key="none", base_url="http://api.test/v1", http_client=transport)


def accumulated(written: bytes) -> list[dict[str, Any]]:
    """The output items that the client puts together of the pieces alone, and checks against the
    response at the end."""
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
