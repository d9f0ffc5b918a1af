"""ProtoBuf:1 on one connection, which carries one event at a time.

Calls pipeline. What a plugin declares in `prefetch` leaves in one write before its handler runs;
setters wait for the next getter, exit or the end. Kong answers every call in order, so replies
that nobody waits for are counted and dropped.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import Any, Final, NoReturn

from typing_extensions import override

from kong_ai_proxy.pluginserver.events import Event, EventOver, check_body_size
from kong_ai_proxy.pluginserver.instances import Instance, UnknownPluginError
from kong_ai_proxy.pluginserver.pdk import PDKException
from kong_ai_proxy.pluginserver.plugin_info import info
from kong_ai_proxy.pluginserver.session import Session
from kong_ai_proxy.pluginserver.wire import WireError
from kong_ai_proxy.pluginserver.wire import protobuf as wire
from kong_ai_proxy.telemetry import failures

log = logging.getLogger(__name__)

_SMALL_FILE: Final = 64 * 1024
_RAW_BODY: Final = "kong.request.get_raw_body"
_EXIT: Final = wire.CALLS["kong.response.exit"]


class ProtobufEvent(Event):
    """One event: its queue of setters, its prefetched replies, and whether it waits for Kong."""

    __slots__ = ("_asked_at", "_expected", "_queue", "_replies", "_session", "sequence")

    protocol = "protobuf"

    def __init__(self, session: ProtobufSession, instance: Instance, call: wire.RpcCall) -> None:
        super().__init__(session.events, instance, call.event)
        self._session = session
        self.sequence = call.sequence
        self._queue: list[bytes] = []
        self._replies: dict[bytes, bytes] = {}  # by the frames that asked for them
        self._expected: tuple[bytes, ...] = ()
        self._asked_at: float | None = None

    def begin(self) -> None:
        """Prefetch, then run the handler; at once where there is nothing to prefetch."""
        if self.phase == "access" and self.instance.error is None:
            try:
                frames, self._expected = _prefetch(self.instance)
            except Exception as error:
                self._log_failure(error)
                self.fail(failures.UNEXPECTED)
                return
            if frames:
                self._asked_at = self._events.now()
                self._session.write(frames)
                return
        self.run()

    def reply(self, payload: bytes) -> None:
        """A frame from Kong that is not the reply to a setter. Raises WireError."""
        if self._asked_at is None:
            raise WireError("a frame that nothing asked for")
        if len(self._replies) < len(self._expected):
            self._replies[self._expected[len(self._replies)]] = payload
            if len(self._replies) < len(self._expected):
                return
            self._hear()
            self.run()
        else:
            self._hear()
            self.resume(payload)

    def _hear(self) -> None:
        """Kong's own time is not the handler's: a slow upload is no hanging handler."""
        assert self._asked_at is not None
        self.deadline += self._events.now() - self._asked_at
        self._asked_at = None

    @property
    @override
    def kong_is_busy(self) -> bool:
        return self._asked_at is not None

    @override
    def call(self, name: str, *args: object) -> Any:
        call = wire.CALLS.get(name)
        if call is None or self.over or call.ends:
            self.exit(name, *args)  # says what is wrong where the method does not end the event
        try:
            frames = call.encode(args)
            if call.sets:
                self._queue.append(frames)
                return None
            payload = self._replies.get(frames)
            if payload is None:
                payload = self._ask(frames)
            return call.decode(payload)
        except WireError as error:
            raise PDKException(f"{name}: {error}") from None

    def _ask(self, frames: bytes) -> bytes:
        self._asked_at = self._events.now()
        self._session.ask(self._flush(frames))
        payload: bytes = self.pause()
        return payload

    def _flush(self, frames: bytes) -> tuple[bytes, int]:
        """The queued setters with `frames` behind them, and how many setters there are."""
        queue = self._queue
        if not queue:
            return frames, 0
        self._queue = []
        return b"".join(queue) + frames, len(queue)

    @override
    def raw_body(self, max_bytes: int | None) -> bytes:
        body: bytes | wire.BodyFile = self.call(_RAW_BODY)
        if isinstance(body, wire.BodyFile):
            if _is_small(body):
                return read_body_file(body, max_bytes)
            return self.wait(asyncio.to_thread(read_body_file, body, max_bytes))
        check_body_size(len(body), max_bytes)
        return body

    @override
    def exit(self, name: str, *args: object) -> NoReturn:
        self.method(name)  # raises where there is none
        try:
            frames = wire.CALLS[name].encode(args)
        except WireError as error:
            raise PDKException(f"{name}: {error}") from None
        self._finish()
        self._session.leave(self._flush(frames)[0])
        raise EventOver

    @override
    def send_end(self) -> None:
        self._session.end(*self._flush(wire.END + wire.encode_return(self.sequence)))

    @override
    def send_exit(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._session.leave(_EXIT.encode((status, body, headers)))


def _prefetch(instance: Instance) -> tuple[bytes, tuple[bytes, ...]]:
    """What asks for a plugin's `prefetch`: all frames, and the frames call by call.

    Worked out once for each instance. Raises WireError.
    """
    if instance.prepared is None:
        calls = [_encode_getter(*call) for call in getattr(instance.plugin, "prefetch", ())]
        calls = list(dict.fromkeys(calls))
        instance.prepared = b"".join(calls), tuple(calls)
    prepared: tuple[bytes, tuple[bytes, ...]] = instance.prepared
    return prepared


def _encode_getter(name: str, *args: object) -> bytes:
    call = wire.CALLS.get(name)
    if call is None or call.sets or call.ends:
        raise WireError(f"prefetch: {name} is no getter of ProtoBuf:1")
    # The most bytes to accept are for the handler's call; they are not on this wire.
    return call.encode(() if name == _RAW_BODY else args)


def _is_small(path: str) -> bool:
    """Whether a file is read sooner than a thread is woken: nginx has just written it, so that it
    comes from memory."""
    try:
        return os.stat(path).st_size <= _SMALL_FILE
    except OSError:
        return False


def read_body_file(path: str, max_bytes: int | None) -> bytes:
    """The request's body from the file into which Kong spooled it. Blocks.

    Raises BodyTooLarge, and PDKException where the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            check_body_size(os.fstat(file.fileno()).st_size, max_bytes)
            return file.read()
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "error")
        text = f"cannot read the request body that Kong spooled to {path} ({reason})"
        if isinstance(error, PermissionError):
            text += ": the plugin server must run as the user that Kong's workers run as"
        raise PDKException(text) from None


class ProtobufSession(Session):
    """The commands on one connection, and the event that it carries."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._framer = wire.Framer()
        self._event: ProtobufEvent | None = None
        self._owed = 0  # replies to setters that Kong has still to send

    @override
    def split(self, data: bytes) -> list[bytes]:
        return self._framer.feed(data)

    @override
    def take(self, message: bytes) -> None:
        if self._owed:
            self._owed -= 1
        elif self._event is not None:
            self._event.reply(message)
        elif not self._deaf:
            self._command(wire.RpcCall.decode(message))

    @override
    def pause_writing(self) -> None:
        # During an event Kong may be writing replies while it has not read all we sent; reading
        # must go on, or both wait for each other.
        if self._event is None:
            super().pause_writing()

    @override
    def end_events(self, message: str | None) -> None:
        event = self._event
        if event is not None:
            if message is not None:
                event.fail(message)
            event.kill()
            self._event = None

    # For the event

    def ask(self, flushed: tuple[bytes, int]) -> None:
        """Send setters and a getter."""
        self._owed += flushed[1]
        self.write(flushed[0])

    def end(self, frames: bytes, owed: int) -> None:
        """Send what ends the event; the connection is free for the next command."""
        self._event = None
        self._owed += owed
        self.write(frames)

    def leave(self, frames: bytes) -> None:
        """Send what Kong does not answer: it closes the connection when the request ends."""
        self._event = None
        self.ignore_the_rest()
        self.write(frames)

    # Commands

    def _command(self, call: wire.RpcCall) -> None:
        if call.command == wire.HANDLE_EVENT:
            instance = self.instances.live(call.instance)
            if instance is not None:
                self._begin(instance, call)
            else:
                self.later(self._find(call))
        elif call.command == wire.START_INSTANCE:
            self.later(self._start(call))
        elif call.command == wire.GET_INSTANCE_STATUS:
            self.later(self._status(call))
        else:
            self._return(call, self._about_plugins(call))

    def _return(self, call: wire.RpcCall, field: bytes = b"") -> None:
        self.write(wire.encode_return(call.sequence, field))

    def _about_plugins(self, call: wire.RpcCall) -> bytes:
        """CLOSE_INSTANCE gets nothing, and nothing is closed: other workers share the id."""
        plugins = self.instances.plugins
        if call.command == wire.GET_PLUGIN_NAMES:
            return wire.plugin_names(sorted(plugins))
        if call.command == wire.GET_PLUGIN_INFO and call.name in plugins:
            return wire.plugin_info(call.name, *info(plugins[call.name]))
        return b""

    def _begin(self, instance: Instance, call: wire.RpcCall) -> None:
        event = ProtobufEvent(self, instance, call)
        self._event = event
        if self.events.full:
            event.fail(failures.OVERLOADED)
            return
        self.events.add(event)
        event.begin()

    async def _find(self, call: wire.RpcCall) -> None:
        try:
            instance = await self.instances.find(call.instance)
        except Exception as error:
            log.error("instance %d: not found: %s", call.instance, failures.frames_of(error))
            body = failures.body_of(failures.UNEXPECTED)
            self.leave(_EXIT.encode((500, body, failures.HEADERS)))
            return
        if self._deaf:
            return
        if instance is None:
            self.leave(wire.unknown_method(f"no plugin instance {call.instance}"))
        else:
            self._begin(instance, call)

    async def _start(self, call: wire.RpcCall) -> None:
        try:
            instance = await self.instances.start(call.name, call.config)
        except UnknownPluginError as error:
            # An answer without an instance would leave Kong waiting for 10 s.
            log.error("%s", error)
            self.close()
            return
        self._return(call, wire.instance_status(call.name, instance.id))

    async def _status(self, call: wire.RpcCall) -> None:
        instance = await self.instances.find(call.instance)
        if instance is None:
            self._return(call)
            return
        status = wire.instance_status(instance.name, instance.id, instance.started_at)
        self._return(call, status)
