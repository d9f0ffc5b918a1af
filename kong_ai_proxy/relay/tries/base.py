"""What all tries have in common."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Address,
    ClientRequest,
    Commit,
    Emit,
    Env,
    Fail,
    Finish,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.outcome import Tried
from kong_ai_proxy.relay import report
from kong_ai_proxy.relay.client_body import ClientBody
from kong_ai_proxy.relay.downstream import Downstream
from kong_ai_proxy.relay.guards import Guards, Pace, too_late
from kong_ai_proxy.relay.ids import new_id
from kong_ai_proxy.relay.upstream import Timeouts, Upstream

_log = logging.getLogger(__name__)

MAX_REASON = 300
"""Characters of what a provider says that a line of the log has."""


class TargetFailed(Exception):  # noqa: N818 - a result
    """This try is over."""

    def __init__(self, fail: Fail) -> None:
        super().__init__(fail.reason)
        self.fail = fail


class Unsuited(Exception):  # noqa: N818 - a result
    """The target cannot be asked this, which is nobody's failure."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


class Carrying(NamedTuple):
    """One request that is carried, whichever target it goes to."""

    client: ClientRequest
    body: ClientBody
    down: Downstream
    upstream: Upstream
    tokens: Tokens
    timeouts: Timeouts
    guards: Guards
    started: float
    """By the loop's clock."""

    def elapsed(self) -> float:
        """Seconds since the request has arrived."""
        return asyncio.get_running_loop().time() - self.started


class Try(ABC):
    """One Attempt at its target. Never used twice."""

    def __init__(
        self, carrying: Carrying, attempt: Attempt, pace: Pace | None, *, is_last: bool
    ) -> None:
        """`pace` is what the beginning of a stream has to pass, if anything."""
        self.attempt = attempt
        self.sent = False
        """Whether the request may have reached the provider."""
        self.fail: Fail | None = None
        """What it has ended with before the client got anything."""
        self.failure: str | None = None
        """What was wrong with the answer that the client has a part of."""
        self.first_content: float | None = None
        """When it came, by the loop's clock."""
        self.has_ended_session = False
        """Whether a side has closed its WebSocket."""
        self._carrying = carrying
        self._down = carrying.down
        self._is_last = is_last
        self._outgoing: UpstreamRequest | None = None
        self._place: Address | None = None
        self._ip: str | None = None
        self._loop = asyncio.get_running_loop()
        self._limit: asyncio.Timeout | None = None  # until something is committed
        self._pace = pace
        self._is_paced = False

    async def run(self) -> Fail | None:
        """Ask the target. The failure before which the client got nothing, if any. Raises
        Unsuited, and Refused where it is the client's fault."""
        carrying, attempt = self._carrying, self.attempt
        carrying.body.begin()
        seconds = carrying.guards.seconds(
            carrying.elapsed(), is_stream=attempt.wants_stream and not self._is_last
        )
        try:
            if seconds is None and self._pace is None:
                await self._start()
            else:
                async with asyncio.timeout(seconds) as self._limit:
                    await self._start()
        except TargetFailed as failed:
            self._failed(failed.fail)
        except TimeoutError:
            if self._limit is None or not self._limit.expired():
                raise
            self.sent = True  # as far as is known here
            reason = "the stream is too slow" if self._is_paced else "no content in time"
            self._failed(too_late(reason))
        finally:
            self._limit = None
        return self.fail

    async def tell(self) -> bool:
        """Give the client what this try has failed with, where that is an answer."""
        self._pace = None
        told = self.fail.told if self.fail else ()
        await self._do(iter(told))
        return bool(told)

    @property
    def has_asked(self) -> bool:
        """Whether somebody was asked."""
        return self._outgoing is not None

    def log_failure(self, level: int) -> None:
        """Tell the operator what it has failed with: the client only learns of the last one."""
        if self.fail is not None:
            self._log(self.fail.reason, level)

    def asked(self) -> tuple[Tried, ...]:
        """The target that was asked, if it was."""
        if self._outgoing is None:
            return ()
        place = self._place or self._outgoing.address
        return (report.tried(self.attempt, place, self._ip),)

    async def _start(self) -> None:
        try:
            env = await self._env()
        except Refused as refused:
            raise TargetFailed(Fail("error", refused.message, refused)) from None
        await self._ask(env)

    @abstractmethod
    async def _ask(self, env: Env) -> None:
        """Ask, and answer the client. Raises TargetFailed, Unsuited, Refused."""

    async def _env(self) -> Env:
        """The time, a random id, and the credential of the identity that the target has."""
        credential = None
        identity, tokens = self.attempt.identity, self._carrying.tokens
        if identity is not None:
            try:
                credential = tokens.ready(identity) or await tokens.get(identity)
            except TokenError as error:
                _log.warning("%s", error)
                raise Refused(SERVER_ERROR, "LLM request failed before proxying") from None
        return Env(time.time(), new_id(), credential)

    # ---- the answer

    async def _do(self, actions: Iterator[Action]) -> None:
        for action in actions:
            await self._do_one(action)

    async def _do_one(self, action: Action) -> None:
        if self._pace is not None and not isinstance(action, Fail):
            await self._do_paced(self._pace, action)
            return
        if type(action) is Emit:
            if action.chunk:
                await self._down.emit(action.chunk)
        else:
            await self._do_once(action)
        if self.first_content is None:
            self._note_first_content()

    async def _do_paced(self, pace: Pace, action: Action) -> None:
        """Hold what has begun until it is known how quick it is."""
        if not self._is_paced and self._limit is not None:
            self._is_paced = True
            left = self._carrying.guards.left(self._carrying.elapsed())
            self._limit.reschedule(self._loop.time() + min(pace.seconds, left))
        actions = list(pace.take(action))
        if pace.is_over:
            self._pace = None
        await self._do(iter(actions))

    async def _do_once(self, action: Action) -> None:
        match action:
            case Commit(head, length):
                self._unlimited()
                self._down.commit(head, length)
            case Finish():
                await self._down.finish()
            case Abort():
                answer = self.attempt.answer
                self.failure = _reason((answer.failure if answer else None) or "", self.attempt)
                self._log(self.failure)
                await self._down.abort()
            case Fail():
                raise TargetFailed(action)

    def _unlimited(self) -> None:
        """What the client has before it has no limit of the guards."""
        if self._limit is not None:
            self._limit.reschedule(None)

    def _note_first_content(self) -> None:
        answer = self.attempt.answer
        if answer and answer.reading and answer.reading.has_content:
            self.first_content = self._loop.time()

    def _failed(self, fail: Fail) -> None:
        self.fail = fail._replace(reason=_reason(fail.reason, self.attempt))

    def _log(self, reason: str, level: int = logging.WARNING) -> None:
        if self._outgoing is None:  # lost before it called anybody
            return
        provider, model = self.attempt.model.provider, self.attempt.request_model
        who = f"{provider}/{model}" if model else provider
        scheme, host, port, *_ = self._outgoing.address
        _log.log(level, "%s at %s://%s:%d failed: %s", who, scheme, host, port, reason)


def _reason(text: str, attempt: Attempt) -> str:
    """A reason for the log. Providers quote the key that they refuse."""
    return (report.masked(text, attempt) or "")[:MAX_REASON]
