"""The table of faults with the criterion that each of them is, and pairs of targets to try it on:
one that has the fault, and one that answers well; and targets asked one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from typing_extensions import override

from kong_ai_proxy.relay.settings import RelaySettings
from tests.faults import (
    CONTROL_CHARACTER,
    GARBAGE,
    HUGE_HEADER,
    MANY_HEADERS,
    ODD_STATUS,
    Close,
    CloseAtOnce,
    ErrorEvent,
    Faulty,
    Good,
    HalfClose,
    Hang,
    Refuse,
    Reset,
    Status,
    Step,
    TooShort,
    Trickle,
    Unanswered,
)
from tests.recorder import Received
from tests.relays import RunningRelay, running
from tests.unit.relay.clients import JSON, Answer, ask

CRITERIA = (
    "error",
    "timeout",
    "invalid_header",
    "http_403",
    "http_404",
    "http_429",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
)
"""All words of `failover_criteria` but `non_idempotent`, which says what the others are for."""

NEVER = ""
ONE_SHOT, STREAM, BOTH = ("one-shot",), ("stream",), ("one-shot", "stream")
LONG = Good("hello you there")


class Fault(NamedTuple):
    """What a provider does; `criteria` are the words for it, any of which makes another one be
    asked. `told` is what the client is told where none is."""

    step: Step
    criteria: str
    told: int
    modes: Sequence[str] = BOTH
    sent: bool = True
    """Whether the request may have had an effect: POST then needs `non_idempotent`."""


# fmt: off
FAULTS: dict[str, Fault] = {
    # before the head
    "refused":                      Fault(Refuse(), "error", 502, sent=False),
    "closed at once":               Fault(CloseAtOnce(), "error", 502),
    "reset at once":                Fault(CloseAtOnce(reset=True), "error", 502),
    "closed before the head":       Fault(Close(), "error", 502),
    "reset before the head":        Fault(Reset(), "error", 502),
    "half-closed before the head":  Fault(HalfClose(), "error", 502),
    "closed in the head":           Fault(Close(head=20), "error", 502),
    "reset in the head":            Fault(Reset(head=9), "error", 502),
    "half-closed in the head":      Fault(HalfClose(head=20), "error", 502),
    # no head that can be read
    "no HTTP":                      Fault(GARBAGE, "invalid_header", 502),
    "no status":                    Fault(ODD_STATUS, "invalid_header", 502),
    "a control character":          Fault(CONTROL_CHARACTER, "invalid_header", 502),
    "too many headers":             Fault(MANY_HEADERS, "invalid_header", 502),
    "a huge header":                Fault(HUGE_HEADER, "invalid_header", 502),
    # a status
    "400":                          Fault(Status(400), NEVER, 400),
    "401":                          Fault(Status(401), NEVER, 401),
    "403":                          Fault(Status(403), "http_403", 403),
    "404":                          Fault(Status(404), "http_404", 404),
    "408":                          Fault(Status(408), NEVER, 408),
    "429":                          Fault(Status(429), "http_429", 429),
    "500":                          Fault(Status(500), "http_500", 500),
    "502":                          Fault(Status(502), "http_502", 502),
    "503":                          Fault(Status(503), "http_503", 503),
    "504":                          Fault(Status(504), "http_504", 504),
    "529":                          Fault(Status(529), "http_503", 529),
    "503 without a body":           Fault(Status(503, body=b""), "http_503", 503),
    "503 of a web server":          Fault(Status(503, body=b"<html>no</html>"), "http_503", 503),
    "503 compressed":               Fault(Status(503, encoding="gzip"), "http_503", 503),
    "503 that trickles":            Fault(Trickle(Status(503), 0.001, 40), "http_503", 503),
    "503 reset in its body":        Fault(Reset(Status(503), body=9), "http_503", 503),
    # in the body, before the client has anything of it
    "reset after the head":         Fault(Reset(body=0), "error", 502),
    "closed after the head":        Fault(Close(body=0), "error", 502),
    "reset in the body":            Fault(Reset(body=20), "error", 502),
    "closed in the body":           Fault(Close(body=20), "error", 502),
    "half-closed in the body":      Fault(HalfClose(body=20), "error", 502),
    "too short a body":             Fault(TooShort(), "error", 502, ONE_SHOT),
    "reset before content":         Fault(Reset(words=0), "error", 502, STREAM),
    "chunks that break off":        Fault(Close(words=0), "error", 502, STREAM),
    # an error in a stream of status 200, before its first content
    "a 400 inside":                 Fault(ErrorEvent(400), NEVER, 400, STREAM),
    "a 429 inside":                 Fault(ErrorEvent(429), "http_429", 429, STREAM),
    "a 500 inside":                 Fault(ErrorEvent(500), "error http_500", 500, STREAM),
    "an overload inside":           Fault(ErrorEvent(529), "error http_503", 529, STREAM),
    "a 500 first of all":           Fault(ErrorEvent(500, opening=False), "error http_500", 500,
                                          STREAM),
    # after the first content
    "reset after content":          Fault(Reset(LONG, words=1), NEVER, 200, STREAM),
    "closed after content":         Fault(Close(LONG, words=2), NEVER, 200, STREAM),
    "half-closed after content":    Fault(HalfClose(LONG, words=1), NEVER, 200, STREAM),
    "an error after content":       Fault(ErrorEvent(500, after="hello"), NEVER, 200, STREAM),
}

HANGS: dict[str, Fault] = {
    "no connection":                Fault(Unanswered(), "timeout", 504, sent=False),
    "silent before the head":       Fault(Hang(), "timeout", 504),
    "silent in the head":           Fault(Hang(head=9), "timeout", 504),
    "silent after the head":        Fault(Hang(body=0), "timeout", 504),
    "silent in the body":           Fault(Hang(body=20), "timeout", 504),
    "silent before content":        Fault(Hang(words=0), "timeout", 504, STREAM),
    "503 that never ends":          Fault(Hang(Status(503), body=9), "http_503", 503),
    "silent after content":         Fault(Hang(LONG, words=1), NEVER, 200, STREAM),
}
# fmt: on


# ---- targets


def target(provider: str, place: Faulty, alias: str, key: str, **more: Any) -> dict[str, Any]:
    """One target with a key of its own."""
    options: dict[str, Any] = {"upstream_url": place.origin}
    if provider == "anthropic":
        options["anthropic_version"] = "2023-06-01"
    header = "x-api-key" if provider == "anthropic" else "authorization"
    name = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5"}[provider]
    return {
        "route_type": "llm/v1/chat",
        "auth": {"header_name": header, "header_value": key},
        "model": {"provider": provider, "name": name, "model_alias": alias, "options": options},
        **more,
    }


LOGGED = {"log_statistics": True}


@dataclass
class Pairs:
    """A relay whose configuration has two targets for each name, tried in this order."""

    relay: RunningRelay
    places: dict[str, tuple[Faulty, Faulty]]
    order: tuple[str, str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The log's lines, parsed."""
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    """For who wants to ask by himself."""

    async def ask(self, name: str, *, stream: bool) -> Answer:
        """The answer to a conversation for which these two are there."""
        return await ask(self.relay, "POST", "/chat", question(name, stream=stream), CLIENT)

    def tried(self, name: str) -> list[int]:
        """Ports of `tried_targets` of the newest line about one of these two; [] without any."""
        ports = [each.port for each in self.places[name]]
        for line in reversed(self.lines):
            found = [each["port"] for each in line["ai"]["proxy"]["tried_targets"]]
            if set(found) & set(ports):
                return found
        return []


CLIENT = {**JSON, "authorization": "Bearer the-clients-own", "x-api-key": "the-clients-own"}


def question(name: str, *, stream: bool) -> bytes:
    """A conversation."""
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    body = {"model": name, "messages": messages, "max_tokens": 50}
    return orjson.dumps({**body, "stream": True} if stream else body)


@contextlib.asynccontextmanager
async def pairs(
    faults: dict[str, Fault],
    criteria: Iterable[str],
    order: tuple[str, str] = ("openai", "anthropic"),
    **balancer: Any,
) -> AsyncIterator[Pairs]:
    """The relay with a pair for each fault. It is the first target that has it."""
    async with contextlib.AsyncExitStack() as stack:
        places: dict[str, tuple[Faulty, Faulty]] = {}
        targets = []
        for name, fault in faults.items():
            places[name] = (
                await stack.enter_async_context(Faulty(fault.step)),
                await stack.enter_async_context(Faulty(Good("hello"))),
            )
            for at, (provider, place) in enumerate(zip(order, places[name], strict=True)):
                key, weight = f"key-{at}-{place.port}", 200 - 100 * at
                targets.append(target(provider, place, name, key, weight=weight, logging=LOGGED))
        own = {"algorithm": "priority", "failover_criteria": list(criteria), **balancer}
        configuration = {"targets": targets, "balancer": own}
        relay = await stack.enter_async_context(
            running(configuration, "ai-proxy-advanced", RelaySettings())
        )
        found = Pairs(relay, places, order)
        stack.enter_context(log_lines(found.lines))
        yield found
        await relay.settled()


@contextlib.contextmanager
def log_lines(into: list[dict[str, Any]]) -> Iterator[None]:
    """Have the lines that tell what became of requests."""
    logger, handler = logging.getLogger("kong_ai_proxy.outcome"), _Lines(into)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _Lines(logging.Handler):
    def __init__(self, into: list[dict[str, Any]]) -> None:
        super().__init__()
        self._into = into

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(json.loads(record.getMessage()))


# ---- targets one after the other


ALL = [*CRITERIA, "non_idempotent"]
NAME = "the-model"
LONG_MS = 20_000
"""A timeout that is never over, in milliseconds."""
SHORT_MS = 400
"""One that is soon over, but in which a good answer comes on a busy machine too."""


@contextlib.asynccontextmanager
async def targets(
    *places: Faulty,
    providers: Sequence[str] = (),
    settings: RelaySettings | None = None,
    criteria: Sequence[str] = ALL,
    common: dict[str, Any] | None = None,
    logging: dict[str, bool] = LOGGED,
    balancer: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[RunningRelay]:
    """A relay that asks these in their order. `common` are members of the configuration, `balancer`
    and `more` of its balancer."""
    names = providers or ["openai"] * len(places)
    own = [
        target(provider, place, NAME, f"key-{at}", weight=1000 - at, logging=logging)
        for at, (provider, place) in enumerate(zip(names, places, strict=True))
    ]
    found = {
        "algorithm": "priority",
        "failover_criteria": list(criteria),
        **(balancer or {}),
        **more,
    }
    configuration = {"targets": own, "balancer": found, **(common or {})}
    async with running(configuration, "ai-proxy-advanced", settings) as relay:
        yield relay


@contextlib.asynccontextmanager
async def providers(*steps: Step | Sequence[Step]) -> AsyncIterator[list[Faulty]]:
    """A provider for each script."""
    async with contextlib.AsyncExitStack() as stack:
        scripts = [(each,) if isinstance(each, Step) else each for each in steps]
        yield [await stack.enter_async_context(Faulty(*script)) for script in scripts]


def kind(step: object) -> str:
    """A step's name, for tests' ids."""
    return type(step).__name__


async def answered(relay: RunningRelay, *, stream: bool = False) -> Answer:
    async with asyncio.timeout(20):
        return await ask(relay, "POST", "/chat", question(NAME, stream=stream), CLIENT)


def error(answer: Answer) -> str:
    return str(orjson.loads(answer.body)["error"]["message"])


# ---- what is wrong with a cell


async def complaints(pairs: Pairs, name: str, fault: Fault, mode: str, *, over: bool) -> list[str]:
    """What is not as it should be when this fault meets a request; `over`: another target is to
    be asked. The providers are as new afterwards."""
    first, second = pairs.places[name]
    try:
        async with asyncio.timeout(20):
            found = await pairs.ask(name, stream=mode == "stream")
            while pairs.relay.relay.requests:  # its line is written once it is over
                await asyncio.sleep(0)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        return [f"{name}, {mode}: {type(error).__name__}"]
    wrong: list[str] = []
    if over:
        wrong += _not_hello(found, mode)
    else:
        wrong += _not_told(found, fault)
    wrong += [f"the second was asked {len(second.heads)} times"] * (len(second.heads) != over)
    wrong += [f"the first was asked {len(first.heads)} times"] * (len(first.heads) > 1)
    wrong += [f"the first had {first.connections} connections"] * (first.connections > 1)
    for at, place in enumerate((first, second)):
        key = f"key-{at}-{place.port}"
        for request in place.received:
            wrong += _odd_request(request, pairs.order[at], key, stream=mode == "stream")
    ports = [first.port, second.port][: 1 + over]
    if (tried := pairs.tried(name)) != ports:
        wrong.append(f"tried_targets {tried} are not {ports}")
    for place in (first, second):
        await place.become(*(place.script))
    return [f"{name}, {mode}: {each}" for each in wrong]


def said(answer: Answer, mode: str) -> str:
    """The text of an answer in OpenAI's format. Raises ValueError or KeyError for none."""
    if mode != "stream":
        return str(orjson.loads(answer.body)["choices"][0]["message"]["content"])
    events = [line[6:] for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
    parsed = [orjson.loads(each) for each in events]
    deltas = [each["choices"][0]["delta"] for each in parsed if each.get("choices")]
    return "".join(each.get("content") or "" for each in deltas)


def _not_hello(found: Answer, mode: str) -> list[str]:
    if found.status != 200 or not found.complete:
        return [f"status {found.status}, complete {found.complete}: {found.body[:200]!r}"]
    if said(found, mode) != "hello" or b"error" in found.body:
        return [f"said {found.body!r}"]
    is_whole = mode != "stream" or found.body.endswith(b"data: [DONE]\n\n")
    return [] if is_whole else ["the stream does not end"]


def _not_told(found: Answer, fault: Fault) -> list[str]:
    """An error before the first content is a status; after it, an end that does not look good."""
    if found.status != fault.told:
        return [f"status {found.status} is not {fault.told}: {found.body[:200]!r}"]
    if found.status != 200:
        return [] if found.complete else ["an error that is not complete"]
    if b'"error"' not in found.body or b"[DONE]" in found.body or b"hello" not in found.body:
        return [f"after content: {found.body!r}"]
    return []


def _odd_request(request: Received, provider: str, key: str, *, stream: bool) -> list[str]:
    """Each provider is asked in its own format, from what the client asked; it sees its own key
    and no other one, and no ticket."""
    body = orjson.loads(request.body)
    wrong = [f"{provider} was asked {body}"] * (body != asked(provider, stream=stream))
    headers = " ".join(f"{name}: {value}" for name, value in request.headers).lower()
    keys = [request.header("authorization"), request.header("x-api-key")]
    if [each for each in keys if each] != [key]:
        wrong.append(f"{provider} got {keys}")
    if "clients-own" in headers or "kong" in headers:
        wrong.append(f"{provider} got {headers}")
    return wrong


def asked(provider: str, *, stream: bool) -> dict[str, Any]:
    """The question as this provider gets it."""
    user = {"role": "user", "content": "hi"}
    if provider == "openai":
        messages = [{"role": "system", "content": "be kind"}, user]
        body = {"model": "gpt-4o", "messages": messages, "max_tokens": 50}
        more = {"stream": True, "stream_options": {"include_usage": True}}
    else:
        body = {"model": "claude-sonnet-4-5", "system": "be kind", "messages": [user]}
        body["max_tokens"], more = 50, {"stream": True}
    return {**body, **more} if stream else body
