"""Fixtures of Gemini's format, and Google's own library as the judge of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from google.genai import types
from pydantic import BaseModel

_HERE = Path(__file__).parent / "fixtures"
_MEMBERS: dict[str, type[BaseModel]] = {
    "contents": types.Content,
    "systemInstruction": types.Content,
    "tools": types.Tool,
    "toolConfig": types.ToolConfig,
    "generationConfig": types.GenerationConfig,
    "safetySettings": types.SafetySetting,
}
_OTHERS = {"cachedContent", "labels", "modelArmorConfig", "serviceTier"}


def fixture(name: str) -> Any:
    """A fixture's `body`."""
    return json.loads((_HERE / f"{name}.json").read_text())["body"]


def stream(name: str) -> bytes:
    """A stream of events as it came over the wire."""
    return (_HERE / f"{name}.stream.sse").read_bytes()


def events(stream: bytes) -> list[Any]:
    """The objects of a stream of events."""
    lines = stream.replace(b"\r\n", b"\n").split(b"\n\n")
    return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def array(stream: bytes) -> bytes:
    """The same stream as Google sends it without `alt=sse`: one array, indented."""
    return (
        b"[" + b"\n,\r\n".join(json.dumps(e, indent=2).encode() for e in events(stream)) + b"\n]\n"
    )


def judged(body: Mapping[str, object]) -> dict[str, Any]:
    """A request's body, which Google's own types know: they allow no member that they do not."""
    for name, value in body.items():
        if name in _OTHERS:
            continue
        for each in value if isinstance(value, list) else [value]:
            _MEMBERS[name].model_validate(each)
    return dict(body)


def answer(value: object) -> types.GenerateContentResponse:
    """What Google's library makes of an answer."""
    return types.GenerateContentResponse.model_validate(value)
