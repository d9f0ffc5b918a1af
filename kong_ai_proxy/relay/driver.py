"""One request that the relay carries, until it is answered: it asks one target after the other."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.balancer.rounds import Round
from kong_ai_proxy.exchange.answer import BODILESS
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.errors import SERVER_ERROR, SERVICE_UNAVAILABLE, Refused
from kong_ai_proxy.exchange.hold import UNSUITED
from kong_ai_proxy.exchange.messages import ClientRequest, Fail, ResponseHead
from kong_ai_proxy.exchange.outcome import Outcome, Tried
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.relay import report, websocket
from kong_ai_proxy.relay.balancing import Balancing, is_miss
from kong_ai_proxy.relay.client_body import ClientBody
from kong_ai_proxy.relay.downstream import Downstream
from kong_ai_proxy.relay.guards import NO_GUARDS, Guards
from kong_ai_proxy.relay.ticket import Claims
from kong_ai_proxy.relay.tries import new_try
from kong_ai_proxy.relay.tries.base import Carrying, Try, Unsuited
from kong_ai_proxy.relay.upstream import Timeouts, Upstream
from kong_ai_proxy.telemetry.failures import UNEXPECTED, frames_of

_log = logging.getLogger(__name__)

DEFAULT_TIMEOUTS = Timeouts(connect=60.0, write=60.0, read=3600.0)
"""For ai-proxy, where the Service's own limits end the request sooner."""

LEFT = "the client left"

MAX_KEPT = 1 << 20
"""Bytes of a body that passes by which are kept, where the configuration names no limit."""


class Driver:
    """One request with a valid ticket."""

    def __init__(
        self,
        request: web.BaseRequest,
        client: ClientRequest,
        claims: Claims,
        plan: Plan,
        upstream: Upstream,
        tokens: Tokens,
        balancing: Balancing | None = None,
        guards: Guards = NO_GUARDS,
    ) -> None:
        """`balancing` is there where the configuration has several targets, or a breaker."""
        self._client = client
        self._claims = claims
        self._plan = plan
        self._balancing = balancing
        self._loop = asyncio.get_running_loop()
        self._body = ClientBody(request, client, _kept_bytes(plan) if balancing else 0)
        self._down = Downstream(request, self._is_framed, self._frame)
        self._carrying = Carrying(
            client=client,
            body=self._body,
            down=self._down,
            upstream=upstream,
            tokens=tokens,
            timeouts=Timeouts(*plan.timeouts) if plan.timeouts else DEFAULT_TIMEOUTS,
            guards=guards,
            started=self._loop.time(),
        )
        self._current: Try | None = None  # which the client has its answer from
        self._tried: list[Tried] = []  # those that have failed
        self._failure: str | None = None
        self._marker = report.marker(client)
        self._told = False

    async def run(self) -> web.StreamResponse:
        """Answer the request. Raises CancelledError when the client has left."""
        try:
            await self._exchange()
        except Refused as refused:
            self._failure = refused.message
            await self._refuse(refused)
        except asyncio.CancelledError:
            self._note_left()
            raise
        except ConnectionError:  # seen while writing, before aiohttp has cancelled us
            self._failure = LEFT
            raise asyncio.CancelledError from None
        except Exception as error:
            self._failure = type(error).__name__
            if self._down.response is None:
                _log.error("a request failed\n%s", frames_of(error))
                await self._refuse(Refused(SERVER_ERROR, UNEXPECTED))
            else:
                _log.error("an answer broke off\n%s", frames_of(error))
                self._down.cut()
        finally:
            self._tell()
            self._down.forget()
        assert self._down.response is not None
        return self._down.response

    async def _exchange(self) -> None:
        self._plan.check_head(self._client)
        body = None
        if self._plan.body(self._client) is Body.READ:
            body = await self._body.read(self._plan.max_body)
        ask = self._plan.ask(self._client, body)
        if self._balancing is not None:
            await self._try_targets(self._balancing, ask)
            return
        trying = self._current = new_try(self._carrying, self._plan.attempt_at(ask, relayed=True))
        try:
            failed = await trying.run()
        except Unsuited as unsuited:
            raise unsuited.refused from None
        if failed:
            self._note(trying)
            await self._give_up(trying, failed)

    # ---- one target after the other

    async def _try_targets(self, balancing: Balancing, ask: Ask) -> None:
        """Ask one target after the other until one has answered. Raises Refused."""
        chosen = await balancing.round(ask, self._left / 2)  # the rest is the targets'
        unsuited: Refused | None = None
        last: tuple[Try, Fail] | None = None
        tries = 0
        while tries <= balancing.retries:
            index = chosen.next(balancing.now())
            if index is None:
                break
            is_last = tries == balancing.retries or len(chosen.tried) == len(ask.candidates)
            try:
                trying = self._new_try(balancing, chosen, ask, is_last=is_last)
                failed = await self._try_one(balancing, chosen, trying, ask)
            except Unsuited as found:
                unsuited = unsuited or found.refused
                continue
            if failed is None:
                return
            tries += failed.criterion != UNSUITED and not is_miss(failed, ask)
            if last is None or _tells_more(failed, last[1], ask):
                last = trying, failed
            if not self._goes_on(balancing, trying, failed, ask):
                break
        if last is None and unsuited is None:
            _log.warning("plugin %s: no target may be asked now", self._plan.plugin_id)
        if last is None:
            raise unsuited or Refused(SERVER_ERROR, "no available targets")
        if is_miss(last[1], ask) and len(chosen.tried) < len(ask.candidates):
            self._current = last[0]
            raise _not_found_so_far()
        await self._give_up(*last)

    def _new_try(self, balancing: Balancing, chosen: Round, ask: Ask, *, is_last: bool) -> Try:
        """For the target that was chosen last. Raises Unsuited."""
        trial = balancing.trial(ask, is_last=is_last)
        try:
            attempt = self._plan.attempt_at(ask, chosen.tried[-1], relayed=True, trial=trial)
        except Refused as refused:
            chosen.give_back()
            raise Unsuited(refused) from None
        pace = self._carrying.guards.pace(is_stream=attempt.wants_stream and not is_last)
        return new_try(self._carrying, attempt, pace, is_last=is_last)

    async def _try_one(
        self, balancing: Balancing, chosen: Round, trying: Try, ask: Ask
    ) -> Fail | None:
        """Ask the target that was chosen last, and note how it fared. Raises Unsuited."""
        index, attempt = chosen.tried[-1], trying.attempt
        self._current = trying
        started = balancing.now()
        balancing.states.begin(index)
        try:
            failed = await trying.run()
        except BaseException:
            chosen.give_back()
            balancing.left(index, attempt)
            raise
        finally:
            balancing.states.end(index)
        missed = failed is not None and is_miss(failed, ask)
        self._note(trying, logging.INFO if missed else logging.WARNING)
        # That the client stalls is not the provider's fault either.
        if failed and (self._body.is_awaited or failed.criterion == UNSUITED):
            chosen.give_back()
        elif failed and not missed:
            balancing.failed(index, attempt, failed)
        elif not trying.has_asked:  # it was certain without
            chosen.give_back()
        elif missed:
            balancing.missed(index)
        else:
            balancing.ended(index, attempt, balancing.now() - started)
        return failed

    def _note(self, trying: Try, level: int = logging.WARNING) -> None:
        """If it has failed."""
        if trying.fail is not None:
            self._tried.extend(trying.asked())
            trying.log_failure(level)

    def _goes_on(self, balancing: Balancing, trying: Try, fail: Fail, ask: Ask) -> bool:
        """Whether another target may be asked after this failure."""
        may_repeat = self._body.can_be_sent_again and self._left > 0
        return may_repeat and balancing.leads_on(fail, ask, sent=trying.sent)

    @property
    def _left(self) -> float:
        """Seconds of the budget."""
        return self._carrying.guards.left(self._carrying.elapsed())

    # ---- answers of our own

    async def _give_up(self, trying: Try, failed: Fail) -> None:
        """Tell the client of the failure after which nobody else is asked."""
        self._current, self._failure = trying, failed.reason
        if not await trying.tell():
            await self._refuse(failed.answer)

    async def _refuse(self, refused: Refused) -> None:
        status, body, headers = self._plan.answer(refused)
        self._down.commit(ResponseHead(status, tuple(headers.items())), len(body))
        await self._down.emit(body)
        await self._down.finish()

    def _note_left(self) -> None:
        has_ended = self._current is not None and self._current.has_ended_session
        if not has_ended and not websocket.is_closed(self._down.response):
            self._failure = LEFT

    # ---- what is told of it

    def _is_framed(self, status: int) -> bool:
        """Whether a frame follows the body: somebody wants it, and the shim cuts it off."""
        wanted = self._current is not None and self._current.attempt.is_logged
        has_body = self._client.method != "HEAD" and status not in BODILESS
        return wanted and has_body and self._marker is not None

    def _frame(self) -> bytes:
        """What became of the request, for the shim."""
        found = self._outcome()
        if found is None or self._marker is None:
            return b""
        self._told = True
        return report.as_frame(self._marker, found)

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        found = self._outcome()
        if found:
            report.as_line(found)

    def _outcome(self) -> Outcome | None:
        current = self._current
        if current is None or not current.has_asked:
            return None
        ending = report.Ending(
            started=self._carrying.started,
            ended=self._loop.time(),
            first_content=current.first_content,
            status=self._down.status,
            failure=self._failure or current.failure,
        )
        own = current.asked() if current.fail is None else ()
        tried = (*self._tried, *own)
        return report.outcome(
            self._plan, self._claims, self._client, current.attempt, tried, ending
        )


def _tells_more(fail: Fail, before: Fail, ask: Ask) -> bool:
    """Whether the client is told this failure rather than the one before. That a target has not
    what the client looks for, says nothing as long as another one could not say."""
    if UNSUITED in (fail.criterion, before.criterion):
        return fail.criterion != UNSUITED
    if is_miss(fail, ask) != is_miss(before, ask):
        return is_miss(before, ask)
    return bool(fail.told) or not before.told


def _not_found_so_far() -> Refused:
    message = "not found so far: not every target could be asked, and each has things of its own"
    return Refused(SERVICE_UNAVAILABLE, message)


def _kept_bytes(plan: Plan) -> int:
    """How much of a body that passes by is kept to be sent again."""
    return plan.max_body or MAX_KEPT
