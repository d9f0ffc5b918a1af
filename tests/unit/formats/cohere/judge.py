"""Cohere's own library as the judge of what is sent to Cohere and to its clients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cohere
import httpx
import orjson
from cohere.types import (
    ChatMessages,
    CitationOptions,
    EmbedInputType,
    ResponseFormatV2,
    Thinking,
    ToolV2,
)
from pydantic import BaseModel, TypeAdapter

FIXTURES = Path(__file__).parent / "fixtures"

_TYPES: dict[str, Any] = {
    "messages": ChatMessages,
    "tools": list[ToolV2],
    "response_format": ResponseFormatV2,
    "thinking": Thinking,
    "citation_options": CitationOptions,
    "input_type": EmbedInputType,
}


def fixture(file: str, name: str) -> Any:
    return orjson.loads((FIXTURES / file).read_bytes())[name]["body"]


def stream(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def check_request(body: Mapping[str, object], method: str = "chat") -> None:
    """The body could be one of the library's own: its members, and those inside them."""
    v1 = method.startswith("generate")
    client: Any = cohere.Client if v1 else cohere.ClientV2
    known = inspect.signature(getattr(client, method)).parameters
    assert body.keys() - {"stream"} <= known.keys()
    for name, value in body.items():
        if name in _TYPES:
            check(_TYPES[name], value)


def check(kind: Any, value: object) -> Any:
    """`value` is of this type of the library, without a member that it does not know."""
    found = TypeAdapter(kind).validate_python(value)
    _no_extra(found)
    return found


def _no_extra(value: object) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra
        for name in value.model_fields_set:
            _no_extra(getattr(value, name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            _no_extra(each)


def client(body: bytes, media_type: str = "application/json", status: int = 200) -> Any:
    """A client of Cohere's whose every request has this answer. Its `.v2` is that of API v2."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"content-type": media_type})

    transport = httpx.MockTransport(answer)
    return cohere.Client("key", httpx_client=httpx.Client(transport=transport))
