"""The plugin server: Kong's connections on one listening Unix socket, in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import struct
from collections.abc import Mapping
from typing import Final

from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.pluginserver.events import Events
from kong_ai_proxy.pluginserver.instances import Instances, Plugin, Store
from kong_ai_proxy.pluginserver.msgpack_session import EventTable, MsgpackSession
from kong_ai_proxy.pluginserver.protobuf_session import ProtobufSession
from kong_ai_proxy.pluginserver.session import Session
from kong_ai_proxy.pluginserver.wire.methods import Protocol
from kong_ai_proxy.relay.ticket import Issuer

log = logging.getLogger(__name__)

EVENT_SECONDS: Final = 50.0
"""The time limit of an event: below the 60 s after which Kong stops waiting for an answer."""

_ACCEPT_PAUSE: Final = 0.1  # where no descriptor is free
_MAX_CLIENTS: Final = 256  # processes; Kong has one for each core
_CLOSE_SECONDS: Final = 0.5  # what a peer has to read the end and close; Kong does it at once


_CREDENTIALS: Final = struct.Struct("iII")  # unix(7): process, user, group


class PluginServer:
    """Answers Kong's commands and runs the plugins' handlers.

    `plugins`: classes by plugin name. `protocol`: what Kong speaks on the socket, as the dump says.
    `event_seconds`: the most that an event may take, without the time for which Kong works on its
    calls; then the client gets a 500. Keep it below 60, Kong's own limit. `relay`: issuer of
    tickets for the plugins that take one.
    """

    def __init__(
        self,
        plugins: Mapping[str, type[Plugin]],
        store: Store,
        *,
        protocol: Protocol = "protobuf",
        event_seconds: float = EVENT_SECONDS,
        relay: Issuer | None = None,
    ) -> None:
        self._instances = Instances(plugins, store, relay)
        self._events = Events(event_seconds)
        self._protocol = protocol
        self._table = EventTable()
        self._sessions: set[Session] = set()
        self._opening: set[asyncio.Task[object]] = set()
        self._clients = _Clients()
        self._stopped = asyncio.Event()
        self._empty = asyncio.Event()  # no connections are left

    @property
    def events(self) -> int:
        """Events under way."""
        return len(self._events)

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones among them."""
        return len(self._sessions)

    @property
    def has_clients(self) -> bool:
        """Whether any process that ever connected may still run."""
        return self._clients.any_left()

    async def find_plan(self, number: int, digest: bytes) -> Plan | None:
        """The plan of an instance that may have been started at another worker; None where it is
        not known, means another configuration by now, or has a configuration that is refused."""
        instance = await self._instances.find(number)
        if instance is None or instance.config_digest != digest:
            return None
        plan = getattr(instance.plugin, "plan", None)
        return plan if isinstance(plan, Plan) else None

    async def serve(self, sock: socket.socket) -> None:
        """Accept connections on a listening Unix socket until stop(). Leaves the socket open.

        Several processes may serve the same socket.
        """
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        loop.add_reader(sock, self._accept, loop, sock)
        try:
            await self._stopped.wait()
        finally:
            loop.remove_reader(sock)

    def stop(self) -> None:
        """Accept no more connections. Those that are open go on, and so do events."""
        self._stopped.set()

    async def close(self) -> None:
        """Close what is left. Clients of events under way get a 500."""
        self.stop()
        if self._opening:
            await asyncio.wait(self._opening)
        for session in list(self._sessions):
            session.close()
        self._events.kill()  # of which Kong had said no more
        if not await self._emptied():
            for session in list(self._sessions):
                session.abort()
            await self._emptied()

    async def _emptied(self) -> bool:
        if not self._sessions:
            return True
        self._empty.clear()
        try:
            await asyncio.wait_for(self._empty.wait(), _CLOSE_SECONDS)
        except TimeoutError:
            return False
        return True

    def _lost(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()

    def session(self) -> Session:
        """A new connection's protocol object."""
        common = self._instances, self._events, self._lost
        if self._protocol == "msgpack":
            session: Session = MsgpackSession(self._table, *common)
        else:
            session = ProtobufSession(*common)
        self._sessions.add(session)
        return session

    def _accept(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster
        except OSError as error:
            log.error("cannot accept connections: %s", error.strerror)
            loop.remove_reader(sock)
            loop.call_later(_ACCEPT_PAUSE, self._accept_again, loop, sock)
            return
        connection.setblocking(False)
        self._clients.add(connection)
        opening = loop.create_task(loop.connect_accepted_socket(self.session, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _accept_again(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        if not self._stopped.is_set():
            loop.add_reader(sock, self._accept, loop, sock)


class _Clients:
    """The processes that have connected: Kong's workers."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}  # of processes, by their id
        self._is_incomplete = False

    def add(self, connection: socket.socket) -> None:
        """Remember the process at the other end."""
        if self._is_incomplete:
            return
        try:
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            process, _, _ = _CREDENTIALS.unpack(credentials)
            if process not in self._descriptors:
                self._make_room()
                self._descriptors[process] = os.pidfd_open(process)
        except ProcessLookupError:
            pass  # gone already
        except (OSError, AttributeError):  # in another PID namespace, or not on Linux
            self._is_incomplete = True

    def _make_room(self) -> None:
        if len(self._descriptors) >= _MAX_CLIENTS:
            self._forget_ended()
        if len(self._descriptors) >= _MAX_CLIENTS:
            raise OSError("more processes than Kong can have")

    def any_left(self) -> bool:
        """Whether any of them runs, or may run because it cannot be told."""
        self._forget_ended()
        return self._is_incomplete or bool(self._descriptors)

    def _forget_ended(self) -> None:
        for process, descriptor in list(self._descriptors.items()):
            if select.select([descriptor], [], [], 0)[0]:
                os.close(descriptor)
                del self._descriptors[process]
