"""One worker process: an event loop with a PluginServer and a Relay on the listening sockets that
it inherited.

SIGTERM: it accepts no more connections of Kong's, finishes its events, and goes on relaying until
every request is there whose access phase ran in this generation, and is finished; at most the drain
limit. When the supervisor is gone (the link ends) the same happens within a second.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.pluginserver import logs, plugins
from kong_ai_proxy.pluginserver.generation import Settings
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.store import SharedStore
from kong_ai_proxy.relay.once import Once
from kong_ai_proxy.relay.server import Relay
from kong_ai_proxy.relay.shared import SharedTargets
from kong_ai_proxy.relay.ticket import Issuer, Verifier

ORPHAN_SECONDS = 1.0
"""What events and requests under way get when the supervisor is gone."""

SETTLE_SECONDS = 0.1
"""Between the last event and the end of its connection. An event is over once its last frames are
written, but Kong still answers the setters among them, and a request whose answer finds a closed
connection fails. And on a connection that was just accepted the first event is still to come."""

_LOOK_SECONDS = 0.05  # between two looks at whether anything is left

_log = logging.getLogger("kong_ai_proxy.pluginserver.worker")  # run with -m: not __main__


def main(argv: list[str]) -> int:
    """Serve: `argv` is the plugin server's socket path, this worker's slot, and the descriptors of
    the listening socket, of the link to the supervisor, of the relay's listening socket, of the
    memory of tickets and of that of targets; the generation's settings come on stdin. Returns the
    exit status, 1 when the plugins do not load."""
    settings = Settings.from_json(sys.stdin.buffer.read())
    logs.configure(settings.log_level, "worker")
    slot, *descriptors, tickets, targets = map(int, argv[1:])
    listener, link, relay_listener = (socket.socket(fileno=number) for number in descriptors)
    try:
        found = plugins.load(Path(settings.plugins) if settings.plugins else None)
    except Exception:
        _log.exception("cannot load the plugins")
        return 1
    with listener, relay_listener:
        table = Table(SharedTargets(targets, settings.workers).memory, slot)
        worker = _Worker(settings, found, slot, Once(tickets), table)
        return uvloop.run(worker.run(listener, link, relay_listener))


class _Worker:
    def __init__(
        self, settings: Settings, found: dict[str, type], slot: int, once: Once, table: Table
    ) -> None:
        self._settings = settings
        self._plugins = found
        self._slot = slot
        self._once = once
        self._table = table
        self._stop = asyncio.Event()

    async def run(
        self, listener: socket.socket, link: socket.socket, relay_listener: socket.socket
    ) -> int:
        store = await SharedStore.open(link)
        port = relay_listener.getsockname()[1]
        server = PluginServer(
            self._plugins,
            store,
            protocol=self._settings.protocol,
            event_seconds=self._settings.event_time_limit,
            relay=Issuer(self._once.secret, self._once.numbers(self._slot), port),
        )
        verifier = Verifier(self._once.secret, self._once)
        relay = Relay(server.find_plan, verifier, self._settings.relay, self._table)
        await relay.start(relay_listener)
        self._once.set_open(self._slot, True)
        serving = asyncio.create_task(server.serve(listener))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        store.ready()
        stops = [asyncio.create_task(event.wait()) for event in (self._stop, store.lost)]
        await asyncio.wait([serving, *stops], return_when=asyncio.FIRST_COMPLETED)
        failed = serving.done()
        await self._end(server, relay, _Limit(store, self._settings.drain))
        for task in (serving, *stops):
            task.cancel()
        await asyncio.wait([serving, *stops])
        await store.close()
        if failed:
            serving.result()
        return 1 if failed else 0

    async def _end(self, server: PluginServer, relay: Relay, limit: _Limit) -> None:
        """Finish what is under way, first events, because they issue tickets, then requests whose
        tickets are still to come, then those that are there. At most until the limit."""
        server.stop()
        await self._events_over(server, limit)
        await server.close()
        seconds = self._settings.drain
        await limit.wait_while(
            lambda: self._once.unclaimed(self._slot, seconds) and server.has_clients
        )
        self._once.set_open(self._slot, False)
        # Kong may send a request on a connection that this worker has, whoever issued its ticket.
        await limit.wait_while(self._once.any_open)
        relay.stop()
        await limit.wait_while(lambda: relay.requests)
        await relay.close()

    async def _events_over(self, server: PluginServer, limit: _Limit) -> None:
        """Until no event is under way, nor came within the settling time."""
        quiet = False
        while not quiet and not limit.is_over():
            idle = not server.events
            await asyncio.sleep(SETTLE_SECONDS if idle else 0.02)
            quiet = idle and not server.events


class _Limit:
    """When whatever is still under way is given up."""

    def __init__(self, store: SharedStore, seconds: float) -> None:
        self._store = store
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        if self._store.lost.is_set():
            self._end = min(self._end, time.monotonic() + ORPHAN_SECONDS)
        return time.monotonic() >= self._end

    async def wait_while(self, condition: Callable[[], object]) -> None:
        """Wait until the condition does not hold, at most until the limit."""
        while condition() and not self.is_over():  # noqa: ASYNC110 - other processes change it
            await asyncio.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
