"""One connection of Kong's: what the sessions of both protocols have in common."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from typing_extensions import override

from kong_ai_proxy.pluginserver.events import Events
from kong_ai_proxy.pluginserver.instances import Instances
from kong_ai_proxy.pluginserver.wire import WireError
from kong_ai_proxy.telemetry import failures

log = logging.getLogger(__name__)


class Session(asyncio.Protocol, abc.ABC):
    """Cuts what Kong sends into messages and hands them on one at a time.

    An idle connection is never closed from here: Kong keeps it for its next request. Only bytes
    that are no message of the protocol close it.
    """

    def __init__(
        self, instances: Instances, events: Events, on_lost: Callable[[Session], None]
    ) -> None:
        self.instances = instances
        self.events = events
        self._on_lost = on_lost
        self._transport = cast(asyncio.Transport, None)  # set before anything else happens
        self._held: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None
        self._deaf = False

    # What a protocol brings

    @abc.abstractmethod
    def split(self, data: bytes) -> list[Any]:
        """The messages that are complete with `data`. Raises WireError."""

    @abc.abstractmethod
    def take(self, message: Any) -> None:
        """Handle one message. Raises WireError."""

    @abc.abstractmethod
    def end_events(self, message: str | None) -> None:
        """End the events of this connection, with an answer to the client where one is given."""

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self._deaf = True
        self.end_events(None)
        self._on_lost(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            for message in self.split(data):
                if self._task is None:
                    self.take(message)
                else:
                    self._held.append(message)
        except WireError as error:
            self.refuse(error)

    @override
    def pause_writing(self) -> None:
        self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        if self._task is None:
            self._transport.resume_reading()

    # For the protocols

    def write(self, data: bytes) -> None:
        """Send, in one piece."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def ignore_the_rest(self) -> None:
        """Nothing more is expected on this connection; Kong closes it."""
        self._deaf = True
        self._held.clear()

    def refuse(self, error: WireError) -> None:
        """Close: the other side does not speak the protocol."""
        log.warning("connection ended: %s", error)
        self.ignore_the_rest()
        self.end_events(None)
        self._transport.close()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that has to wait; messages that come meanwhile are held."""
        self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            log.error("a command failed: %s", failures.frames_of(cast(Exception, task.exception())))
            self.refuse(WireError("a command of Kong's could not be carried out"))
        try:
            while self._held and self._task is None:
                self.take(self._held.popleft())
        except WireError as error:
            self.refuse(error)
        if self._task is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """End events with an answer to the client, and the connection."""
        self.end_events(failures.ENDING)
        self.half_close()

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading until Kong closes.

        Kong takes the end for a closed connection and repeats its event on another one. A full
        close would break the pipe under what Kong is writing, and fail that request.
        """
        self.ignore_the_rest()
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._transport.write_eof()

    def abort(self) -> None:
        """End the connection without waiting for the other side to read."""
        self._transport.abort()
