"""One worker process: an event loop, a PluginServer on the listening socket it inherited.

SIGTERM: it stops accepting, finishes its events, at most the drain limit, and ends. When the
supervisor is gone (the link ends) the same happens within a second.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

from kong_ai_proxy.pluginserver import logs, plugins
from kong_ai_proxy.pluginserver.generation import Settings
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.store import SharedStore

ORPHAN_SECONDS = 1.0
"""What events under way get when the supervisor is gone."""

SETTLE_SECONDS = 0.1
"""Between the last event and the end of its connection. An event is over once its last frames are
written, but Kong still answers the setters among them, and a request whose answer finds a closed
connection fails. And on a connection that was just accepted the first event is still to come."""

_log = logging.getLogger("kong_ai_proxy.pluginserver.worker")  # run with -m: not __main__


def main(argv: list[str]) -> int:
    """Serve: `argv` is the generation's settings as JSON, the descriptors of the listening socket
    and of the link to the supervisor. Returns the exit status, 1 when the plugins do not load."""
    settings = Settings.from_json(argv[0])
    logs.configure(settings.log_level, "worker")
    listener, link = (socket.socket(fileno=int(number)) for number in argv[1:])
    try:
        found = plugins.load(Path(settings.plugins) if settings.plugins else None)
    except Exception:
        _log.exception("cannot load the plugins")
        return 1
    with listener:
        return uvloop.run(_Worker(settings, found).run(listener, link))


class _Worker:
    def __init__(self, settings: Settings, found: dict[str, type]) -> None:
        self._settings = settings
        self._plugins = found
        self._stop = asyncio.Event()

    async def run(self, listener: socket.socket, link: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        store = await SharedStore.open(link)
        server = PluginServer(
            self._plugins,
            store,
            protocol=self._settings.protocol,
            event_seconds=self._settings.event_time_limit,
        )
        serving = asyncio.create_task(server.serve(listener))
        store.ready()
        stops = [asyncio.create_task(event.wait()) for event in (self._stop, store.lost)]
        await asyncio.wait([serving, *stops], return_when=asyncio.FIRST_COMPLETED)
        failed = serving.done()
        server.stop()
        await self._drain(server, store)
        await server.close()
        for task in (serving, *stops):
            task.cancel()
        await asyncio.wait([serving, *stops])
        await store.close()
        if failed:
            serving.result()
        return 1 if failed else 0

    async def _drain(self, server: PluginServer, store: SharedStore) -> None:
        """Wait until no event is under way, nor came within the settling time."""
        limit = time.monotonic() + self._settings.drain
        quiet = False
        while not quiet and time.monotonic() < limit:
            if store.lost.is_set():
                limit = min(limit, time.monotonic() + ORPHAN_SECONDS)
            idle = not server.events
            await asyncio.sleep(SETTLE_SECONDS if idle else 0.02)
            quiet = idle and not server.events


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
