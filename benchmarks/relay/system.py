"""The relay in a process of its own.

`python -m benchmarks.relay.system CORE UPSTREAM_PORT DESCRIPTOR` prints its port. The descriptor is
that of the tickets' shared memory.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.relay import cases, pinned
from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.config import parse
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay import ticket
from kong_ai_proxy.relay.once import Once
from kong_ai_proxy.relay.server import Relay
from kong_ai_proxy.relay.settings import RelaySettings


@asynccontextmanager
async def listening(upstream: int, descriptor: int) -> AsyncIterator[int]:
    """The relay's port."""
    plans = {
        n: Plan(parse("ai-proxy", cases.config(name, upstream)))
        for n, name in enumerate(cases.INSTANCES, 1)
    }

    async def find_plan(instance: int, _digest: bytes) -> Plan | None:
        return plans.get(instance)

    once = Once(descriptor)
    verifier = ticket.Verifier(once.secret, once)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    relay = Relay(find_plan, verifier, RelaySettings(), Table.private())
    await relay.start(listener)
    yield int(listener.getsockname()[1])
    await relay.close()


if __name__ == "__main__":
    pinned.serve(int(sys.argv[1]), listening(int(sys.argv[2]), int(sys.argv[3])))
