"""The client: closed loop over keep-alive connections, no HTTP library in between.

`python -m benchmarks.relay.load CORE DESCRIPTOR` reads jobs from standard input, one JSON object a
line, and prints a line of JSON for each. The descriptor is that of the tickets' shared memory;
tickets are signed before a job's clock starts.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import orjson
import uvloop
from typing_extensions import override

from benchmarks.relay import cases, pinned, whole, wire
from benchmarks.relay.tickets import Tickets


@dataclass(frozen=True)
class Job:
    """`connections` at once for `warm` + `seconds`; 0: one request, looked at closely."""

    name: str
    port: int
    tickets: int = 0
    """How many to sign ahead; 0: the requests carry none."""
    connections: int = 0
    warm: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Slice:
    """What a job measured. Times in milliseconds."""

    rate: float = 0.0
    """Answers a second; of an upload or a download megabytes a second."""
    p50: float = 0.0
    p99: float = 0.0
    first50: float = 0.0
    """To the first byte of the body, median."""
    answers: int = 0
    """All of them, those of the warm-up included."""
    error: str = ""


class Client(asyncio.Protocol):
    """One connection: the next request is sent when the answer is whole."""

    def __init__(self, case: cases.Case, lines: Iterator[bytes], end: float) -> None:
        self._head, self._lines, self._body = case.head()[:-2], lines, b"\r\n" + case.body
        self._end = end
        self._left: int | None = -1
        self._buffer = b""
        self.finished = asyncio.get_running_loop().create_future()
        self.times: list[tuple[float, float, float]] = []
        """When a request began, when its answer's body began, when that ended."""

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc}")

    def send(self) -> None:
        """Begin the next request."""
        began = perf_counter()
        if began > self._end:
            self.finished.set_result(None)
            self._transport.close()
            return
        self._began, self._first, self._left, self._buffer = began, 0.0, -1, b""
        self._transport.writelines((self._head, next(self._lines), self._body))

    @override
    def data_received(self, data: bytes) -> None:
        if self._left == -1:
            data = self._headed(self._buffer + data)
        if data:
            self._first = self._first or perf_counter()
        if self._left == -1 or not self._is_done(data):
            return
        self.times.append((self._began, self._first, perf_counter()))
        self.send()

    def _headed(self, data: bytes) -> bytes:
        at = data.find(wire.HEAD_END)
        if at < 0:
            self._buffer = data
            return b""
        if not data.startswith(b"HTTP/1.1 200 "):
            self._fail(data[:2000].decode(errors="replace"))
        self._left, self._buffer = wire.length(data[: at + 2]), b""
        return data[at + 4 :]

    def _is_done(self, data: bytes) -> bool:
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        self._buffer = data if len(data) >= len(wire.LAST_CHUNK) else self._buffer[-5:] + data
        return self._buffer.endswith(wire.LAST_CHUNK)  # which no answer of the cases has inside

    def _fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(why))


async def measure(job: Job, tickets: Tickets) -> Slice:
    """Run the loop. Raises RuntimeError for an answer that is not 200."""
    loop, case = asyncio.get_running_loop(), cases.BY_NAME[job.name]
    lines = tickets.lines(job.name, job.tickets)
    begin = perf_counter()
    end = begin + job.warm + job.seconds
    clients: list[Client] = []
    for _ in range(job.connections):
        client = Client(case, lines, end)
        clients.append(client)
        await loop.create_connection(lambda made=client: made, "127.0.0.1", job.port)  # type: ignore[misc]
    for n, client in enumerate(clients):  # paced streams must not be in step
        loop.call_later(case.takes * n / len(clients), client.send)
    await asyncio.gather(*(client.finished for client in clients))
    return _slice(job, begin + job.warm, [each for client in clients for each in client.times])


def _slice(job: Job, start: float, times: list[tuple[float, float, float]]) -> Slice:
    counted = [each for each in times if start <= each[2] <= start + job.seconds]
    if not counted:
        raise RuntimeError(f"no answer within {job.seconds} s")
    ends = sorted((last - began) * 1e3 for began, _, last in counted)
    firsts = sorted((first - began) * 1e3 for began, first, _ in counted)
    return Slice(
        rate=len(counted) / job.seconds,
        p50=ends[len(ends) // 2],
        p99=ends[len(ends) * 99 // 100],
        first50=firsts[len(firsts) // 2],
        answers=len(times),
    )


async def one(job: Job, tickets: Tickets) -> Slice:
    """One request. Raises RuntimeError unless both ends got what the other sent."""
    line = next(tickets.lines(job.name, job.tickets))
    took = await whole.exchange(job.name, job.port, line)
    return Slice(rate=cases.BULK_PIECES / took, answers=1)


async def run(job: Job, tickets: Tickets) -> Slice:
    """A job's figures, or why there are none."""
    try:
        return await (measure if job.connections else one)(job, tickets)
    except (RuntimeError, OSError, asyncio.IncompleteReadError) as error:
        return Slice(error=f"{job.name}: {error or type(error).__name__}")


def main() -> None:
    """Do jobs until standard input ends."""
    pinned.pin(int(sys.argv[1]))
    tickets = Tickets(int(sys.argv[2]))
    for line in sys.stdin:
        found = uvloop.run(run(Job(**orjson.loads(line)), tickets))
        print(orjson.dumps(asdict(found)).decode(), flush=True)


if __name__ == "__main__":
    main()
