"""What failover costs: `python -m benchmarks.relay.failover [--seconds N]`.

A request whose first target fails should take no longer than one whose target answers at once, the
failed attempt's own time, and 1 ms. A failed attempt's own time is what a client without the relay
takes to see the same failure. The three are measured in turn, on one loop, with connections that
are kept where the failure keeps them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import statistics
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import perf_counter, process_time
from typing import Any, NamedTuple

import orjson
import uvloop
from typing_extensions import override

from benchmarks.relay import cases, pinned, wire
from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.config import parse
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay.server import Relay
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.ticket import HEADER, Claims, Issuer, Verifier

WARM = 30
LATE = 0.02
OVER, GOOD = "over", "good"
CRITERIA = ["error", "timeout", "http_503", "non_idempotent"]

_JSON = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_ERROR = b'{"error":{"message":"overloaded","type":"server_error","param":null,"code":null}}'
_ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": cases.MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\n" + _JSON % len(_ERROR) + _ERROR
_GOOD = b"HTTP/1.1 200 OK\r\n" + _JSON % len(_ANSWER) + _ANSWER
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_ROLE = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
)
_WORD = _ROLE.replace(b'"role":"assistant","content":""', b'"content":"hello"')
_DONE = wire.chunk(b"data: [DONE]\n\n") + wire.LAST_CHUNK
_GOOD_STREAM = _STREAM + wire.chunk(_ROLE) + wire.chunk(_WORD) + _DONE
_ERROR_EVENT = (
    _STREAM + wire.chunk(_ROLE) + wire.chunk(b"data: " + _ERROR + b"\n\n") + wire.LAST_CHUNK
)


class Fault(NamedTuple):
    """How the first target fails: with an answer after `seconds`, or, without one, by RST."""

    label: str
    answer: bytes | None
    seconds: float = 0.0
    streams: bool = False
    listens: bool = True


FAULTS = (
    Fault("the connection is refused", None, listens=False),
    Fault("reset before the head", None),
    Fault("503", _REFUSAL),
    Fault(f"503 after {LATE * 1000:.0f} ms", _REFUSAL, LATE),
    Fault("an error event in a stream", _ERROR_EVENT, streams=True),
)


class Took(NamedTuple):
    """Seconds: on the clock, and of CPU, which other processes do not make longer. Both ends are
    in them, since all is one process."""

    clock: float
    cpu: float


class Round(NamedTuple):
    """The failure by itself, an answer by itself, and one after the other."""

    failure: Took
    good: Took
    over: Took

    @property
    def added(self) -> Took:
        """What failover took beside both."""
        return Took(*(over - good - failure for failure, good, over in zip(*self, strict=True)))


class _Provider(asyncio.Protocol):
    """Answers each request, which comes in one piece or two."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._loop = asyncio.get_running_loop()
        self._data = b""

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(wire.HEAD_END)
        if not end or len(body) < (wire.length(head + b"\r\n") or 0):
            return
        self._data = b""
        if self._fault is None:
            self._transport.write(_GOOD_STREAM if b'"stream":true' in body else _GOOD)
        elif self._fault.answer is None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif self._fault.seconds:
            self._loop.call_later(self._fault.seconds, self._transport.write, self._fault.answer)
        else:
            self._transport.write(self._fault.answer)


class _Numbers:
    """Of tickets, without the memory that several processes share."""

    def __init__(self) -> None:
        self._next = itertools.count()

    def take(self) -> int:
        return next(self._next)

    def claim(self, number: int) -> None:
        """Each may be used again here."""


class _Client:
    """One connection, made anew where it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> bytes:
        """The head of the answer, once all of it has come. Raises OSError or EOFError."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        try:
            head = await self._reader.readuntil(wire.HEAD_END)
            body = wire.Body(head[:-2])
            while not body.done:
                data = await self._reader.read(1 << 16)
                if not data:
                    raise EOFError
                body.feed(data)
        except (OSError, EOFError):
            self.close()
            raise
        return head

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


@contextlib.asynccontextmanager
async def _listening(fault: Fault | None) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Provider(fault), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    if fault is not None and not fault.listens:
        server.close()
    yield port
    server.close()


def _target(port: int, alias: str, weight: int) -> dict[str, Any]:
    options = {"upstream_url": f"http://127.0.0.1:{port}/v1/chat/completions"}
    model = {"provider": "openai", "name": cases.MODEL, "model_alias": alias, "options": options}
    auth = {"header_name": "authorization", "header_value": "Bearer operator"}
    return {"route_type": "llm/v1/chat", "auth": auth, "model": model, "weight": weight}


@contextlib.asynccontextmanager
async def _relay(failing: int, good: int) -> AsyncIterator[tuple[int, Issuer]]:
    """The relay's port, and who signs tickets for it. As `good` is asked the good target, as
    `over` the failing one before it."""
    targets = [_target(failing, OVER, 200), _target(good, OVER, 100), _target(good, GOOD, 100)]
    balancer = {"algorithm": "priority", "failover_criteria": CRITERIA}
    plan = Plan(parse("ai-proxy-advanced", {"targets": targets, "balancer": balancer}), "bench")

    async def find_plan(_instance: int, _digest: bytes) -> Plan | None:
        return plan

    secret, numbers = secrets.token_bytes(32), _Numbers()
    listener = socket.create_server(("127.0.0.1", 0))
    relay = Relay(find_plan, Verifier(secret, numbers), RelaySettings(), Table.private())
    await relay.start(listener)
    port: int = listener.getsockname()[1]
    try:
        yield port, Issuer(secret, numbers, port)
    finally:
        relay.stop()
        await relay.close()


def _request(alias: str, fault: Fault, headers: dict[str, str]) -> bytes:
    body = {"model": alias, "messages": [{"role": "user", "content": "hi"}]}
    data = orjson.dumps({**body, "stream": True} if fault.streams else body)
    own = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(data))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (own | headers).items())
    return f"POST /chat HTTP/1.1\r\n{lines}\r\n".encode() + data


async def _failing(client: _Client, request: bytes) -> None:
    with contextlib.suppress(OSError, EOFError):
        await client.ask(request)


async def _answered(client: _Client, request: bytes) -> None:
    head = await client.ask(request)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(head.decode())


async def _timed(ask: Callable[[_Client, bytes], Awaitable[None]], *what: Any) -> Took:
    clock, cpu = perf_counter(), process_time()
    await ask(*what)
    return Took(perf_counter() - clock, process_time() - cpu)


async def _measure(fault: Fault, seconds: float) -> list[Round]:
    rounds: list[Round] = []
    async with (
        _listening(fault) as failing,
        _listening(None) as good,
        _relay(failing, good) as (port, issuer),
    ):
        direct, relayed = _Client(failing), _Client(port)

        def with_ticket(alias: str) -> bytes:
            ticket = issuer.issue(Claims(1, cases.DIGEST), "POST", "/chat")
            return _request(alias, fault, {HEADER: ticket})

        until = perf_counter() + seconds
        while perf_counter() < until or len(rounds) < 2 * WARM:
            failure = await _timed(_failing, direct, _request(GOOD, fault, {}))
            good_one = await _timed(_answered, relayed, with_ticket(GOOD))
            over = await _timed(_answered, relayed, with_ticket(OVER))
            rounds.append(Round(failure, good_one, over))
        direct.close()
        relayed.close()
    return rounds[WARM:]


def lines(seconds: float) -> Iterator[str]:
    """A table of medians in ms; the last column says how much of a whole request's CPU is added."""
    yield "| the first target | failure alone | answer alone | failover | added | CPU | of answer |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for fault in FAULTS:
        rounds = uvloop.run(_measure(fault, seconds))
        columns = [[each.clock for each in found] for found in zip(*rounds, strict=True)]
        columns.append([each.added.clock for each in rounds])
        columns.append([each.added.cpu for each in rounds])
        medians = [1000 * statistics.median(each) for each in columns]
        share = medians[-1] / (1000 * statistics.median(each.good.cpu for each in rounds))
        figures = [*(f"{each:.2f}" for each in medians), f"{share:.2f}"]
        yield f"| {fault.label} | " + " | ".join(figures) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    options = parser.parse_args()
    pinned.pin(pinned.CORES[-1])
    logging.getLogger("kong_ai_proxy").addHandler(logging.NullHandler())  # it warns of each failure
    for line in lines(options.seconds):
        print(line)


if __name__ == "__main__":
    main()
