"""Fixtures as bytes of AWS event streams, and parts of conversations."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson

from kong_ai_proxy.formats.aws_event_stream import encode
from kong_ai_proxy.formats.conversation import Conversation, Message, Text

FIXTURES = Path(__file__).parent / "fixtures"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def fixture(name: str) -> dict[str, Any]:
    """The `body` of a fixture."""
    found: dict[str, Any] = orjson.loads((FIXTURES / f"{name}.json").read_bytes())["body"]
    return found


def event(name: str, payload: object) -> bytes:
    """One event of a stream as AWS frames it."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, orjson.dumps(payload))


def exception(name: str, message: str) -> bytes:
    """One exception of a stream."""
    headers = {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode(headers, orjson.dumps({"message": message}))


def events(*values: dict[str, Any]) -> bytes:
    """A stream of ConverseStream."""
    parts = []
    for value in values:
        ((name, payload),) = value.items()
        if name == "exception":
            ((kind, content),) = payload.items()
            parts.append(exception(kind, content["message"]))
        else:
            parts.append(event(name, payload))
    return b"".join(parts)


def lines(name: str) -> list[dict[str, Any]]:
    """What a fixture of a stream consists of, but for its source."""
    found = (FIXTURES / f"{name}.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in found[1:]]


def stream(name: str) -> bytes:
    """A fixture's stream."""
    return events(*lines(name))


def chunks(values: list[dict[str, Any]]) -> bytes:
    """A stream of InvokeModelWithResponseStream."""
    encoded = (b64encode(orjson.dumps(value)).decode() for value in values)
    return b"".join(event("chunk", {"bytes": each, "p": "abcd"}) for each in encoded)


def said(*blocks: Any, model: str = CLAUDE, **more: Any) -> Conversation:
    """A conversation of one message of the user."""
    content = blocks or (Text("Hello"),)
    return Conversation(messages=(Message("user", content),), model=model, **more)
