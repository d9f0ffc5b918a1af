"""Flows driven by hand: what a provider would answer goes in, what it is asked comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.providers.flow import (
    Flow,
    Passed,
    Receive,
    Reply,
    Result,
    Send,
    Wait,
    Wanted,
)

NOW = 1_760_000_000.0
ID = "abcdefghijklmnopqrstuvwx"


@dataclass
class Driven:
    """What a flow did."""

    result: Result | Passed | None = None
    sends: list[Send] = field(default_factory=list)
    waited: float = 0.0
    """Seconds."""

    @property
    def value(self) -> Any:
        """The answer's JSON."""
        assert isinstance(self.result, Result)
        return self.result.body

    def sent(self, index: int = 0) -> Any:
        """The JSON of one request."""
        return orjson.loads(self.sends[index].body or b"null")


def wanted(route_type: str = openai.IMAGE_GENERATIONS, **fields: Any) -> Wanted:
    """What a client wants; `options` as a configuration has them."""
    options = ModelOptions.model_validate(fields.pop("options", {}))
    given = {"id": ID, "now": NOW, **fields}
    return Wanted(route_type=route_type, options=options, **given)


def field_of(name: str, text: str) -> Part:
    """A plain field of a form."""
    return Part(name, None, "", text.encode())


def reply(value: object = None, status: int = 200, **headers: str) -> Reply:
    """An answer of the provider's: bytes as they are, anything else as JSON."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Reply(status, body, {name.replace("_", "-"): text for name, text in headers.items()})


Answers = Iterable[Reply] | Callable[[Send], Reply]


def run(
    flow: Flow,
    asked: Wanted,
    replies: Answers = (),
    *,
    body: Iterable[bytes] = (),
    driven: Driven | None = None,
) -> Driven:
    """Drive `flow` to its end, which may be what it raises; `driven` is then how far it came.

    `replies` are in the order of the calls, or made for each; `body` are the pieces in which the
    client's arrives.
    """
    found = driven if driven is not None else Driven()
    answers = None if callable(replies) else iter(replies)
    pieces = iter(body)
    steps = flow.run(asked)
    value: object = None
    while True:
        try:
            step = steps.send(value)
        except StopIteration as stop:
            found.result = stop.value
            break
        match step:
            case Send():
                found.sends.append(step)
                value = replies(step) if answers is None and callable(replies) else _next(answers)
            case Receive():
                value = next(pieces, b"")
            case Wait(seconds):
                found.waited += seconds
                value = asked.now + found.waited
    if answers is not None:
        assert next(answers, None) is None, "the flow did not ask for all replies"
    return found


def _next(answers: Any) -> Reply:
    found = next(answers, None)
    assert found is not None, "the flow asked for one more reply"
    assert isinstance(found, Reply)
    return found
