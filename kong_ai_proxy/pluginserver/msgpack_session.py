"""MsgPack:1 on one connection.

Kong takes any pooled connection for each step of an event, so events are found by their id and
answer on the connection on which Kong last spoke for them. One PDK call is one round trip.
"""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any, Final, NoReturn

from typing_extensions import override

from kong_ai_proxy.pluginserver.events import Event, EventOver, check_body_size
from kong_ai_proxy.pluginserver.instances import Instance, UnknownPluginError
from kong_ai_proxy.pluginserver.pdk import PDKException
from kong_ai_proxy.pluginserver.plugin_info import info
from kong_ai_proxy.pluginserver.session import Session
from kong_ai_proxy.pluginserver.wire import WireError
from kong_ai_proxy.pluginserver.wire import msgpack as wire
from kong_ai_proxy.pluginserver.wire.methods import METHODS
from kong_ai_proxy.telemetry import failures

log = logging.getLogger(__name__)

_EXIT: Final = METHODS["kong.response.exit"]


class EventTable:
    """The events of one process by id, whichever connection they speak on."""

    def __init__(self) -> None:
        self.by_id: dict[int, MsgpackEvent] = {}
        # Kong may still hold an id of the server before this one. 48 bits: Lua's numbers are
        # doubles, exact to 2^53.
        self._last = secrets.randbits(48)

    def new_id(self) -> int:
        """An id that no event of this process had."""
        self._last += 1
        return self._last


class MsgpackEvent(Event):
    """One event, and the request of Kong's that it has to answer, if any."""

    __slots__ = ("_request", "_session", "_table", "id")

    protocol = "msgpack"

    def __init__(
        self, session: MsgpackSession, request: int, instance: Instance, phase: str
    ) -> None:
        super().__init__(session.events, instance, phase)
        self._table = session.table
        self._session = session
        self._request: int | None = request
        self.id = self._table.new_id()
        self._table.by_id[self.id] = self
        session.owing[request] = self

    def step(self, session: MsgpackSession, request: int, method: str, data: Any) -> None:
        """Kong has done a call. Raises WireError where there was none."""
        if self._request is not None:
            raise WireError("a step that nothing asked for")
        self._session, self._request = session, request
        session.owing[request] = self
        self.resume((method, data))

    @override
    def _finish(self) -> None:
        super()._finish()
        self._table.by_id.pop(self.id, None)

    def _answer(self, data: object) -> None:
        """Answer Kong's request; nothing where Kong waits for none. Raises WireError."""
        if self._request is None:
            return
        packed = wire.encode_result(self._request, {"EventId": self.id, "Data": data})
        self._session.owing.pop(self._request, None)
        self._request = None
        self._session.write(packed)

    @override
    def call(self, name: str, *args: object) -> Any:
        method = self.method(name)
        if method.result == "never":
            self.exit(name, *args)
        try:
            arguments = wire.encode_arguments(method, args)
            self._answer({"Method": name, "Args": arguments})
            step, data = self.pause()
            if step == "plugin.StepError":
                raise WireError("Kong says that it failed")
            return wire.decode_result(method, data)
        except (WireError, ValueError, OverflowError) as error:
            raise PDKException(f"{name}: {error}") from None

    @override
    def raw_body(self, max_bytes: int | None) -> bytes:
        limit = () if max_bytes is None else (max_bytes,)
        body: bytes = self.call("kong.request.get_raw_body", *limit)
        check_body_size(len(body), max_bytes)
        return body

    @override
    def exit(self, name: str, *args: object) -> NoReturn:
        method = self.method(name)
        try:
            self._answer({"Method": name, "Args": wire.encode_arguments(method, args)})
        except WireError as error:
            raise PDKException(f"{name}: {error}") from None
        self._finish()
        raise EventOver

    @override
    def send_end(self) -> None:
        self._answer("ret")

    @override
    def send_exit(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._answer({"Method": _EXIT.name, "Args": [status, body, headers]})


class _MisfitError(Exception):
    """Arguments of a command that are not what it takes."""


def _typed(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise _MisfitError
    return value


def _field(arg: Any, name: str, *kinds: type) -> Any:
    return _typed(_typed(arg, dict).get(name), *kinds)


class MsgpackSession(Session):
    """The requests on one connection."""

    def __init__(self, table: EventTable, *args: Any) -> None:
        super().__init__(*args)
        self.table = table
        self.owing: dict[int, MsgpackEvent] = {}  # by request: who has to answer it
        self._reader = wire.Reader()
        self._greeted = False

    @override
    def split(self, data: bytes) -> list[Any]:
        return self._reader.feed(data)

    @override
    def write(self, data: bytes) -> None:
        if not self._greeted:
            # By another pid Kong sees that its instances may be unknown here. Not before there is
            # an answer to send: bytes on an idle connection make nginx drop it.
            self._greeted = True
            data = wire.encode_pid(os.getpid()) + data
        super().write(data)

    @override
    def end_events(self, message: str | None) -> None:
        """Only events that owe an answer here: the others may go on elsewhere."""
        for event in list(self.owing.values()):
            if message is not None:
                event.fail(message)
            event.kill()
        self.owing.clear()

    @override
    def take(self, message: Any) -> None:
        if self._deaf:
            return
        if not isinstance(message, list) or len(message) != 4 or message[0] != 0:
            raise WireError("expected [0, id, method, args]")
        _, number, method, args = message
        if not isinstance(number, int) or not isinstance(method, str) or number in self.owing:
            raise WireError("expected [0, id, method, args]")
        try:
            self._request(number, method, args[0] if isinstance(args, list) and args else None)
        except _MisfitError:
            if method == "plugin.HandleEvent" or method.startswith("plugin.Step"):
                self._refuse_event(number, 0)
            else:
                self.write(wire.encode_error(number, "these arguments do not fit"))

    def _request(self, number: int, method: str, arg: Any) -> None:
        if method.startswith("plugin.Step"):
            self._step(number, method, arg)
        elif method == "plugin.HandleEvent":
            self._handle(number, _field(arg, "InstanceId", int), _field(arg, "EventName", str))
        elif method == "plugin.StartInstance":
            name, config = _field(arg, "Name", str), _field(arg, "Config", str, bytes)
            self.later(self._start(number, name, config))
        elif method == "plugin.CloseInstance":
            self._result(number, {})  # advisory: other workers of Kong's share the id
        elif method == "plugin.InstanceStatus":
            self.later(self._status(number, _typed(arg, int)))
        elif method == "plugin.GetPluginNames":
            self._result(number, sorted(self.instances.plugins))
        elif method == "plugin.GetPluginInfo":
            self._info(number, str(arg))
        else:
            self.write(wire.encode_error(number, "no such command"))

    def _result(self, number: int, result: object) -> None:
        self.write(wire.encode_result(number, result))

    def _step(self, number: int, method: str, arg: Any) -> None:
        event_id = _field(arg, "EventId", int)
        event = self.table.by_id.get(event_id)
        if event is not None:
            event.step(self, number, method, arg.get("Data"))
        else:
            # An event over its limit, or of a server before this one. An error would make Kong
            # let the request through.
            self._refuse_event(number, event_id)

    def _refuse_event(self, number: int, event: int) -> None:
        body = failures.body_of(failures.UNEXPECTED)
        data = {"Method": _EXIT.name, "Args": [500, body, failures.HEADERS]}
        self._result(number, {"EventId": event, "Data": data})

    def _handle(self, number: int, instance_id: int, phase: str) -> None:
        instance = self.instances.live(instance_id)
        if instance is not None:
            self._begin(number, instance, phase)
        else:
            self.later(self._find(number, instance_id, phase))

    def _begin(self, number: int, instance: Instance, phase: str) -> None:
        event = MsgpackEvent(self, number, instance, phase)
        if self.events.full:
            event.fail(failures.OVERLOADED)
            return
        self.events.add(event)
        event.run()

    async def _find(self, number: int, instance_id: int, phase: str) -> None:
        try:
            instance = await self.instances.find(instance_id)
        except Exception as error:
            log.error("instance %d: not found: %s", instance_id, failures.frames_of(error))
            self._refuse_event(number, 0)
            return
        if self._deaf:
            return
        if instance is None:
            self.write(wire.no_instance(number, instance_id))
        else:
            self._begin(number, instance, phase)

    async def _start(self, number: int, name: str, config: str | bytes) -> None:
        octets = config.encode("utf-8", "surrogateescape") if isinstance(config, str) else config
        try:
            instance = await self.instances.start(name, octets)
        except UnknownPluginError as error:
            log.error("%s", error)
            self.write(wire.encode_error(number, str(error)))
            return
        self._status_of(number, instance)

    async def _status(self, number: int, instance_id: int) -> None:
        instance = await self.instances.find(instance_id)
        if instance is None:
            self.write(wire.no_instance(number, instance_id))
        else:
            self._status_of(number, instance)

    def _status_of(self, number: int, instance: Instance) -> None:
        """Without the configuration: it holds keys."""
        status = {"Name": instance.name, "Id": instance.id, "Config": {}}
        self._result(number, {**status, "StartTime": instance.started_at})

    def _info(self, number: int, name: str) -> None:
        if name not in self.instances.plugins:
            self.write(wire.encode_error(number, "no plugin of this name"))
            return
        phases, version, priority = info(self.instances.plugins[name])
        about = {"Name": name, "Phases": phases, "Version": version, "Priority": priority}
        self._result(number, about)
