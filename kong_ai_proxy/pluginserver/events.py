"""Events: one run of one plugin's handler, each in a greenlet on the loop's thread.

Handlers are written in synchronous style. Where one waits for Kong or for the loop, its greenlet
switches back to the loop and is switched in again when the answer is there. No threads, no locks;
whatever a handler does, it ends one event, and never lets the request through: every failure in a
phase before the answer is an answer to the client.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Final, NoReturn, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

from kong_ai_proxy.pluginserver.instances import Instance
from kong_ai_proxy.pluginserver.pdk import BodyTooLarge, Kong, PDKException
from kong_ai_proxy.pluginserver.wire.methods import METHODS, WIRE_NAMES, Method, Protocol
from kong_ai_proxy.telemetry import failures

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_EVENTS: Final = 16_384
"""Events under way in one process; more are answered with 500 at once."""

MAX_IDLE: Final = 64
"""Greenlets kept for events to come."""

PHASES: Final = frozenset(("certificate", "rewrite", "access", "response", "preread", "log"))
"""Kong's phases in which a plugin server can be called."""


class EventOver(GreenletExit):  # type: ignore[misc]  # greenlet has no types
    """Unwinds a handler whose event has ended. No `except Exception` catches it."""


class Event(abc.ABC):
    """What both protocols' events have in common. Also what `wait` and the PDK work on."""

    __slots__ = (
        "__weakref__",
        "_events",
        "_greenlet",
        "_task",
        "deadline",
        "instance",
        "over",
        "phase",
    )

    protocol: Protocol

    def __init__(self, events: Events, instance: Instance, phase: str) -> None:
        self._events = events
        self._greenlet: greenlet | None = None
        self._task: asyncio.Future[Any] | None = None
        self.deadline = events.now() + events.seconds
        self.instance = instance
        self.phase = phase
        self.over = False

    # What a protocol brings

    @abc.abstractmethod
    def call(self, name: str, *args: object) -> Any:
        """The result of a PDK method. Raises PDKException."""

    @abc.abstractmethod
    def raw_body(self, max_bytes: int | None) -> bytes:
        """The request's body. Raises PDKException, BodyTooLarge."""

    @abc.abstractmethod
    def exit(self, name: str, *args: object) -> NoReturn:
        """Send a PDK call that Kong does not answer, and end the event."""

    @abc.abstractmethod
    def send_end(self) -> None:
        """Tell Kong that the handler is through."""

    @abc.abstractmethod
    def send_exit(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Have Kong answer the client, whatever the handler had asked for before."""

    @property
    def kong_is_busy(self) -> bool:
        """Whether Kong works on a call of ours, so that it is not waiting for us."""
        return False

    # Life

    def run(self) -> None:
        """Run the handler until it waits or ends."""
        if self.instance.error is not None:
            self.fail(self.instance.error)
            return
        if self.phase not in PHASES:
            log.error("plugin %s: Kong has no phase of this name", self.instance.name)
            self.fail(failures.UNEXPECTED)
            return
        self._events.crew.run(self)

    def handle(self, own: greenlet) -> None:
        """Run the handler in `own`, a greenlet that is this event's until it returns."""
        self._greenlet = own
        try:
            handler = getattr(self.instance.plugin, self.phase)
            handler(Kong(self))
        except GreenletExit:
            self.fail(failures.UNEXPECTED)  # nothing where the event is over already
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            self._log_failure(error)
            self.fail(failures.UNEXPECTED)
        else:
            if not self.over:
                self._finish()
                self.send_end()
        finally:
            self._greenlet = None

    def _log_failure(self, error: BaseException) -> None:
        text = "plugin %s, instance %d, phase %s: the handler failed: %s"
        log.error(text, self.instance.name, self.instance.id, self.phase, failures.frames_of(error))

    def _finish(self) -> None:
        self.over = True
        self._events.remove(self)

    def fail(self, message: str) -> None:
        """End the event with a 500; in the log phase, where there is no one to tell, normally."""
        if self.over:
            return
        self._finish()
        if self.phase == "log":
            self.send_end()
        else:
            self.send_exit(500, failures.body_of(message), failures.HEADERS)

    def expire(self) -> None:
        """The time limit has come."""
        text = "plugin %s, instance %d, phase %s: over its time limit of %g s"
        name, number = self.instance.name, self.instance.id
        log.error(text, name, number, self.phase, self._events.seconds)
        self.fail(failures.TOO_SLOW)
        self.kill()

    def kill(self) -> None:
        """End the event without a word to Kong, and unwind its handler."""
        if not self.over:
            self._finish()
        if self._task is not None:
            self._task.cancel()
        if self._greenlet is not None:
            self._greenlet.throw(EventOver)

    # Waiting

    def pause(self) -> Any:
        """Give the loop its turn until `resume`, and return what that brings."""
        return getcurrent().parent.switch()

    def resume(self, value: Any = None) -> None:
        """Let the handler go on. Called by the loop."""
        if self._greenlet is not None:
            self._greenlet.switch(value)

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Await something on the loop while other events go on."""
        if self.over:
            raise EventOver
        task = asyncio.ensure_future(awaitable)
        task.add_done_callback(self._wake)
        self._task = task
        try:
            while not task.done():
                self.pause()
        finally:
            self._task = None
        return task.result()

    def _wake(self, task: asyncio.Future[Any]) -> None:
        if self._task is task and not self.over:
            self.resume()

    def method(self, name: str) -> Method:
        """A PDK method by name. Raises PDKException where this protocol lacks it."""
        method = METHODS.get(name)
        if method is None:
            raise PDKException(f"{name} is no PDK method")
        if self.protocol not in method.protocols:
            raise PDKException(f"{name} is not available over {WIRE_NAMES[self.protocol]}")
        if self.over:
            raise EventOver
        return method


def check_body_size(size: int, max_bytes: int | None) -> None:
    """Raise BodyTooLarge when a body of `size` bytes is more than `max_bytes` (0, None: any)."""
    if max_bytes and size > max_bytes:
        raise BodyTooLarge(size, max_bytes)


class Crew:
    """Greenlets that run events one after the other.

    A new greenlet costs about as much as all of an event's switches, so those that are through
    are kept for the next event.
    """

    def __init__(self) -> None:
        self._idle: list[greenlet] = []

    def __len__(self) -> int:
        return len(self._idle)

    def run(self, event: Event) -> None:
        """Run an event until it waits or ends."""
        own = self._idle.pop() if self._idle else greenlet(self._work)
        own.gr_context = None  # what a handler left in context variables
        own.switch(event)

    def _work(self, event: Event) -> None:
        own = getcurrent()
        while True:
            event.handle(own)
            if len(self._idle) >= MAX_IDLE:
                return
            self._idle.append(own)
            del event  # an idle greenlet keeps nothing alive
            event = own.parent.switch()


class Events:
    """The events under way in one process, and their shared clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.crew = Crew()
        self._running: dict[Event, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._running)

    def now(self) -> float:
        """The loop's clock, in seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    @property
    def full(self) -> bool:
        """Whether no more events may start."""
        return len(self._running) >= MAX_EVENTS

    def add(self, event: Event) -> None:
        """An event begins."""
        self._running[event] = None
        if self._timer is None:
            self._set_timer()

    def remove(self, event: Event) -> None:
        """An event has ended."""
        self._running.pop(event, None)

    def kill(self) -> None:
        """End what is left without a word."""
        for event in list(self._running):
            event.kill()

    def _set_timer(self) -> None:
        assert self._loop is not None
        pause = min(1.0, self.seconds / 8)
        self._timer = self._loop.call_later(pause, self._tick)

    def _tick(self) -> None:
        """Look for events over their limit; no timer runs while there are no events."""
        self._timer = None
        now = self.now()
        for event in list(self._running):
            if event.deadline < now and not event.kong_is_busy:
                event.expire()
        if self._running:
            self._set_timer()
