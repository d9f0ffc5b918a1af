"""The driver of an Attempt: it owns the sockets and the clock, the Attempt decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator

import aiohttp
from aiohttp import web

from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.balancer.rounds import Round
from kong_ai_proxy.exchange.answer import BODILESS
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Address,
    BodyFilter,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Env,
    Event,
    Fail,
    Finish,
    Head,
    Lost,
    NextCall,
    Pause,
    Received,
    ResponseHead,
    Take,
    UpstreamRequest,
    Woken,
)
from kong_ai_proxy.exchange.outcome import Outcome, Tried
from kong_ai_proxy.exchange.plan import Body, Plan, too_large
from kong_ai_proxy.providers.flow import Send
from kong_ai_proxy.relay import report, websocket
from kong_ai_proxy.relay.balancing import Balancing
from kong_ai_proxy.relay.downstream import Downstream
from kong_ai_proxy.relay.guards import NO_GUARDS, Guards, Pace, too_late
from kong_ai_proxy.relay.ids import new_id
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.passing import PassingBody
from kong_ai_proxy.relay.ticket import Claims
from kong_ai_proxy.relay.tries import Failed, TargetFailed, Unsuited
from kong_ai_proxy.relay.upstream import Call, HandshakeRefused, Timeouts, Upstream, UpstreamLost
from kong_ai_proxy.telemetry.failures import UNEXPECTED, frames_of

_log = logging.getLogger(__name__)

DEFAULT_TIMEOUTS = Timeouts(connect=60.0, write=60.0, read=3600.0)
"""For ai-proxy, where the Service's own limits end the request sooner."""

LEFT = "the client left"

MAX_KEPT = 1 << 20
"""Bytes of a body that passes by which are kept, where the configuration names no limit."""
MAX_REASON = 300
"""Characters of what a provider says that a line of the log has."""
ERROR_SECONDS = 1.0
"""For all of an error's text, where another target can be asked instead."""


class Driver:
    """One request with a valid ticket, until it is answered."""

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
        self._request = request
        self._client = client
        self._claims = claims
        self._plan = plan
        self._upstream = upstream
        self._tokens = tokens
        self._down = Downstream(request)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._first_content: float | None = None
        self._failure: str | None = None
        self._refused: Refused | None = None  # why the client's body ends here
        self._body: bytes | None = None
        self._attempt: Attempt | None = None
        self._outgoing: UpstreamRequest | None = None
        self._first_place: Address | None = None  # that a flow has called
        self._marker = report.marker(client)
        self._told = False
        self._is_over = False  # a WebSocket that a side has closed
        self._taking = False  # the client's body is read while it is passed on
        self._balancing = balancing
        self._guards = guards
        self._tried: list[Tried] = []
        self._passing = PassingBody(self._piece, _kept_bytes(plan) if balancing else 0)
        self._sent = False  # this try's request may have reached the provider
        self._ip: str | None = None  # that this try is connected to
        self._limit: asyncio.Timeout | None = None  # until something is committed
        self._pace: Pace | None = None
        self._is_paced = False
        self._is_told = False  # of this try, in `_tried`

    async def run(self) -> web.StreamResponse:
        """Answer the request. Raises CancelledError when the client has left."""
        try:
            await self._exchange()
        except Refused as refused:
            self._failure = refused.message
            await self._refuse(refused)
        except asyncio.CancelledError:
            if not self._is_over and not websocket.is_closed(self._down.response):
                self._failure = LEFT
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
        assert self._down.response is not None
        return self._down.response

    async def _exchange(self) -> None:
        self._plan.check_head(self._client)
        self._body = await self._read_body()
        ask = self._plan.ask(self._client, self._body)
        if self._balancing is not None:
            await self._try_targets(self._balancing, ask)
            return
        try:
            failed = await self._try(self._plan.attempt_at(ask, relayed=True))
        except Unsuited as unsuited:
            raise unsuited.refused from None
        if failed:
            await self._give_up(failed)

    # ---- one target after the other

    async def _try_targets(self, balancing: Balancing, ask: Ask) -> None:
        """Ask one target after the other until one has answered. Raises Refused."""
        left = self._guards.left(self._loop.time() - self._started)
        chosen = await balancing.round(ask, left / 2)  # the rest is the targets'
        unsuited: Refused | None = None
        last: Failed | None = None
        tries = 0
        while tries <= balancing.retries:
            index = chosen.next(balancing.now())
            if index is None:
                break
            is_last = tries == balancing.retries or len(chosen.tried) == len(ask.candidates)
            try:
                failed = await self._try_one(balancing, chosen, ask, is_last=is_last)
            except Unsuited as found:
                unsuited = unsuited or found.refused
                continue
            tries += 1
            if failed is None:
                return
            last = failed if failed.fail.told or last is None or not last.fail.told else last
            if not self._goes_on(balancing, failed.fail, ask.method):
                break
        if last is None and unsuited is None:
            _log.warning("plugin %s: no target may be asked now", self._plan.plugin_id)
        if last is None:
            raise unsuited or Refused(SERVER_ERROR, "no available targets")
        await self._give_up(last)

    async def _try_one(
        self, balancing: Balancing, chosen: Round, ask: Ask, *, is_last: bool
    ) -> Failed | None:
        """Ask the target that was chosen last, and note how it fared. Raises Unsuited."""
        index = chosen.tried[-1]
        trial = balancing.trial(ask, is_last=is_last)
        try:
            attempt = self._plan.attempt_at(ask, index, relayed=True, trial=trial)
        except Refused as refused:
            chosen.give_back()
            raise Unsuited(refused) from None
        self._pace = self._guards.pace(is_stream=attempt.wants_stream and not is_last)
        started = balancing.now()
        balancing.states.begin(index)
        try:
            failed = await self._try(attempt, is_last=is_last)
        except BaseException:
            chosen.give_back()
            balancing.left(index, attempt)
            raise
        finally:
            balancing.states.end(index)
        if failed is None:
            balancing.ended(index, attempt, balancing.now() - started)
        elif self._passing.is_awaited:  # the client stalls: it is not the provider's fault
            chosen.give_back()
        else:
            balancing.failed(index, attempt, failed.fail)
        return failed

    def _goes_on(self, balancing: Balancing, fail: Fail, method: str) -> bool:
        """Whether another target may be asked after this failure of a request with `method`."""
        kept = self._body is not None or self._passing.is_whole
        in_time = self._guards.left(self._loop.time() - self._started) > 0
        return kept and in_time and balancing.leads_on(fail, method, sent=self._sent)

    async def _try(self, attempt: Attempt, *, is_last: bool = True) -> Failed | None:
        """Ask the attempt's target. The failure before which the client got nothing, if any. Raises
        Unsuited."""
        self._attempt = attempt
        self._outgoing = self._first_place = self._first_content = self._ip = None
        self._sent = self._is_paced = self._is_told = False
        self._passing.begin()
        seconds = self._guards.seconds(
            self._loop.time() - self._started, is_stream=attempt.wants_stream and not is_last
        )
        try:
            if seconds is None and self._pace is None:
                await self._ask(attempt)
            else:
                async with asyncio.timeout(seconds) as self._limit:
                    await self._ask(attempt)
        except TargetFailed as failed:
            return self._failed(attempt, failed.fail)
        except TimeoutError:
            if self._limit is None or not self._limit.expired():
                raise
            self._sent = True  # as far as is known here
            reason = "the stream is too slow" if self._is_paced else "no content in time"
            return self._failed(attempt, too_late(reason))
        finally:
            self._limit = None
        return None

    async def _ask(self, attempt: Attempt) -> None:
        try:
            env = await self._env(attempt)
        except Refused as refused:
            raise TargetFailed(Fail("error", refused.message, refused)) from None
        if attempt.is_flow:
            await self._flow(attempt, env)
            return
        try:
            self._outgoing = attempt.start(env)
        except Refused as refused:
            raise Unsuited(refused) from None
        if attempt.is_websocket:
            await self._websocket(attempt, self._outgoing)
            return
        try:
            call = await self._send(self._outgoing)
        except UpstreamLost as lost:
            self._sent = lost.sent
            if self._refused:
                raise self._refused from None
            await self._do(attempt.feed(lost.lost))
            return
        self._sent, self._ip = True, call.ip
        try:
            await self._pass_on(attempt, call)
        finally:
            call.release()

    def _failed(self, attempt: Attempt, fail: Fail) -> Failed:
        """Note a failure, and tell the operator: the client only learns of the last one."""
        fail = fail._replace(reason=_reason(fail.reason, attempt))
        self._log_failure(attempt, fail.reason)
        self._tried.extend(self._asked())
        self._is_told = True
        return Failed(attempt, self._outgoing, self._first_place, fail)

    def _asked(self) -> tuple[Tried, ...]:
        """The target that this try has asked, if it has."""
        if self._attempt is None or self._outgoing is None:
            return ()
        # Not the place of a poll, or of an object.
        place = self._first_place or self._outgoing.address
        return (report.tried(self._attempt, place, self._ip),)

    async def _give_up(self, failed: Failed) -> None:
        """Tell the client of the failure after which nobody else is asked."""
        self._attempt, self._outgoing, self._first_place, fail = failed
        self._failure = fail.reason
        self._pace = None
        if fail.told:
            await self._do(iter(fail.told))
        else:
            await self._refuse(fail.answer)

    async def _env(self, attempt: Attempt) -> Env:
        """The time, a random id, and the credential of the identity that the target has."""
        credential = None
        if attempt.identity is not None:
            try:
                credential = self._tokens.ready(attempt.identity)
                credential = credential or await self._tokens.get(attempt.identity)
            except TokenError as error:
                _log.warning("%s", error)
                raise Refused(SERVER_ERROR, "LLM request failed before proxying") from None
        return Env(time.time(), new_id(), credential)

    # ---- the request

    async def _read_body(self) -> bytes | None:
        """All of the body, where it has to be looked at."""
        if self._plan.body(self._client) is not Body.READ:
            return None
        most = self._plan.max_body
        pieces: list[bytes] = []
        size = 0
        await _continue(self._request)
        while piece := await self._piece():
            size += len(piece)
            if most and size > most:
                raise too_large()
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _send(self, outgoing: UpstreamRequest) -> Call:
        return await self._upstream.send(
            outgoing.method,
            outgoing.address,
            outgoing_headers(self._client, outgoing),
            self._outgoing_body(outgoing),
            self.timeouts,
        )

    @property
    def timeouts(self) -> Timeouts:
        """Those of the configuration."""
        own = self._plan.timeouts
        return Timeouts(*own) if own else DEFAULT_TIMEOUTS

    def _outgoing_body(self, outgoing: UpstreamRequest) -> bytes | AsyncGenerator[bytes] | None:
        if isinstance(outgoing.body, bytes):
            return outgoing.body
        if self._body is not None:
            return self._body or None
        if not self._client.has_body:
            return None
        return self._streamed(outgoing.body)

    async def _streamed(self, change: BodyFilter | None) -> AsyncGenerator[bytes]:
        """The client's body as it arrives, changed where it has to be.

        While the provider takes nothing of it, the client is not read from, and that it has left is
        seen when the time to write is over: its end waits behind what it has sent.
        """
        try:
            await self._ask_for_body()
            while piece := await self._passing.take():
                changed = change.feed(piece) if change else piece
                if changed:
                    yield changed
            if change and (rest := change.end()):
                yield rest
        except Refused as refused:  # aiohttp would only say that sending has failed
            self._refused = refused
            raise

    async def _ask_for_body(self) -> None:
        """Have the client send its body, if it waits for our word."""
        if not self._taking:
            self._taking = True
            await _continue(self._request)

    async def _piece(self) -> bytes:
        """The next of the client's body as it arrives, b"" at its end. Raises Refused where it
        breaks off."""
        try:
            return await self._request.content.readany()
        except (aiohttp.ClientError, web.RequestPayloadError, OSError):
            raise Refused(BAD_REQUEST, "the request's body broke off") from None

    # ---- the answer

    async def _pass_on(self, attempt: Attempt, call: Call) -> None:
        await self._do(attempt.feed(Head(call.head)))
        until = self._loop.time() + ERROR_SECONDS
        while not self._down.ended:
            try:
                chunk = await (_error_text(call, until) if attempt.is_failing else call.read())
            except UpstreamLost as lost:
                await self._do(attempt.feed(lost.lost))
                continue
            direct = attempt.direct  # an answer that is converted has one once it is committed
            if direct is None or not chunk or self._pace is not None:
                await self._do(attempt.feed(Data(chunk) if chunk else End()))
                continue
            if changed := direct(chunk):
                await self._down.emit(changed)
            if self._first_content is None:
                self._note_first_content()
            if attempt.direct is None:  # it has failed: this ends it
                await self._do(attempt.feed(Data(b"")))

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
        if self._first_content is None:
            self._note_first_content()

    async def _do_paced(self, pace: Pace, action: Action) -> None:
        """Hold what has begun until it is known how quick it is."""
        if not self._is_paced and self._limit is not None:
            self._is_paced = True
            now = self._loop.time()
            self._limit.reschedule(now + min(pace.seconds, self._guards.left(now - self._started)))
        actions = list(pace.take(action))
        if pace.is_over:
            self._pace = None
        await self._do(iter(actions))

    def _unlimited(self) -> None:
        """What the client has before it has no limit of the guards."""
        if self._limit is not None:
            self._limit.reschedule(None)

    async def _do_once(self, action: Action) -> None:
        match action:
            case Commit(head, length):
                self._unlimited()
                self._down.commit(head, length, framed=self._is_framed(head.status))
            case Finish():
                await self._down.finish(self._frame())
            case Abort():
                self._fail(self._attempt_failure())
                await self._down.abort(self._frame())
            case Fail():
                raise TargetFailed(action)

    def _fail(self, reason: str | None) -> None:
        """Note why, and tell the operator: the client only learns that it failed."""
        reason = _reason(reason or "", self._attempt) if self._attempt else reason
        self._failure = reason
        if self._attempt is not None:
            self._log_failure(self._attempt, reason)

    def _log_failure(self, attempt: Attempt, reason: str | None) -> None:
        if self._outgoing is None:  # lost before it called anybody
            return
        who = f"{attempt.model.provider}/{attempt.request_model}"
        scheme, host, port, *_ = self._outgoing.address
        _log.warning("%s at %s://%s:%d failed: %s", who, scheme, host, port, reason)

    async def _refuse(self, refused: Refused) -> None:
        """An answer of our own."""
        status, body, headers = self._plan.answer(refused)
        head = ResponseHead(status, tuple(headers.items()))
        self._down.commit(head, len(body), framed=self._is_framed(status))
        await self._down.emit(body)
        await self._down.finish(self._frame())

    # ---- a request that takes several calls

    async def _flow(self, attempt: Attempt, env: Env) -> None:
        try:
            actions = attempt.begin(env)
        except Refused as refused:
            raise Unsuited(refused) from None
        try:
            await self._follow(attempt, actions)
        finally:
            if not self._down.ended:  # the client has left, or it is our own fault
                self._upstream.later(self._follow(attempt, attempt.abandon()))

    async def _follow(self, attempt: Attempt, actions: Iterator[Action]) -> None:
        """Do what a flow asks for, from these actions on, until it asks for nothing more."""
        call: Call | None = None
        try:
            while True:
                asked = await self._do_until_asked(actions)
                if isinstance(asked, NextCall):
                    if call is not None:
                        call.release()
                    call, event = await self._next_call(attempt, asked.send)
                    del asked  # and with it a part of a file that was sent
                elif isinstance(asked, Take):
                    taken = await self._taken()
                    if isinstance(taken, Refused):
                        actions = attempt.broken(taken)
                        continue
                    event = Received(taken)
                elif isinstance(asked, Pause):
                    await asyncio.sleep(asked.seconds)
                    event = Woken(time.time())
                elif call is not None and not self._is_done(attempt):
                    event = await _next_event(call)
                else:
                    return
                actions = attempt.feed(event)
        finally:
            if call is not None:
                call.release()

    def _is_done(self, attempt: Attempt) -> bool:
        """Whether a flow's attempt needs no more events. One that only puts in order what it has
        left does not care for the answer of the attempt after it."""
        return attempt.is_over or (attempt is self._attempt and self._down.ended)

    async def _do_until_asked(self, actions: Iterator[Action]) -> Action | None:
        """Do what can be done at once. The action that asks for something to happen."""
        for action in actions:
            if isinstance(action, (NextCall, Take, Pause)):
                return action
            await self._do_one(action)
            await asyncio.sleep(0)  # each may be the outcome of some work
        return None

    async def _next_call(self, attempt: Attempt, send: Send) -> tuple[Call | None, Event]:
        outgoing = attempt.request(send, await self._env(attempt))
        if attempt is self._attempt:  # and does not only put in order what it has left behind
            self._first_place = self._first_place or outgoing.address
            self._outgoing = outgoing._replace(body=None)  # of a file's part there is one at a time
        body = outgoing.body if isinstance(outgoing.body, bytes) and outgoing.body else None
        try:
            call = await self._upstream.send(
                outgoing.method,
                outgoing.address,
                outgoing_headers(self._client, outgoing),
                body,
                self.timeouts,
            )
        except UpstreamLost as lost:
            self._note_call(attempt, lost.sent, None)
            return None, lost.lost
        self._note_call(attempt, True, call.ip)
        return call, Head(call.head)

    def _note_call(self, attempt: Attempt, sent: bool, ip: str | None) -> None:
        if attempt is self._attempt:
            self._sent, self._ip = self._sent or sent, self._ip or ip

    async def _taken(self) -> bytes | Refused:
        """The next of the client's body, or why there is none."""
        if self._body is not None or not self._client.has_body:
            return b""
        await self._ask_for_body()
        try:
            return await self._passing.take()
        except Refused as refused:
            return refused

    # ---- WebSockets

    async def _websocket(self, attempt: Attempt, outgoing: UpstreamRequest) -> None:
        websocket.check(self._request)
        try:
            provider = await self._upstream.websocket(
                outgoing.address,
                websocket.handshake_headers(self._client, outgoing),
                websocket.protocols(self._client, outgoing),
                self.timeouts,
                websocket.MAX_MESSAGE,
            )
        except UpstreamLost as lost:
            self._sent = lost.sent
            await self._do(attempt.feed(lost.lost))
        except HandshakeRefused as refused:
            for event in (Head(refused.head), Data(refused.body), refused.end):
                await self._do(attempt.feed(event))
        else:
            await self._bridge(attempt, outgoing, provider)

    async def _bridge(
        self,
        attempt: Attempt,
        outgoing: UpstreamRequest,
        provider: aiohttp.ClientWebSocketResponse[bool],
    ) -> None:
        reading = attempt.open_realtime()
        client = websocket.accepting(provider, outgoing)
        bridge = websocket.Bridge(
            client, provider, reading, self.timeouts.write, attempt.change_message
        )
        try:
            self._unlimited()
            self._down.upgrade(client)
            await client.prepare(self._request)
            await bridge.run()
        finally:
            self._failure, self._is_over = bridge.failure, bridge.is_over
            await provider.close()
            self._down.drop()

    def _note_first_content(self) -> None:
        answer = self._attempt.answer if self._attempt else None
        if answer and answer.reading and answer.reading.has_content:
            self._first_content = self._loop.time()

    def _attempt_failure(self) -> str | None:
        answer = self._attempt.answer if self._attempt else None
        return answer.failure if answer else None

    # ---- what is told of it

    def _is_framed(self, status: int) -> bool:
        """Whether a frame follows the body: somebody wants it, and the shim cuts it off."""
        wanted = self._attempt is not None and self._attempt.is_logged
        has_body = self._client.method != "HEAD" and status not in BODILESS
        return wanted and has_body and self._marker is not None

    def _frame(self) -> bytes:
        """What became of the request, for the shim; b"" where it must not or need not know."""
        found = self._outcome() if self._down.framed else None
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
        attempt, outgoing = self._attempt, self._outgoing
        if attempt is None or outgoing is None:
            return None
        ending = report.Ending(
            started=self._started,
            ended=self._loop.time(),
            first_content=self._first_content,
            status=self._down.status,
            failure=self._failure,
        )
        tried = (*self._tried, *(() if self._is_told else self._asked()))
        return report.outcome(self._plan, self._claims, self._client, attempt, tried, ending)


def _reason(text: str, attempt: Attempt) -> str:
    """A reason for the log. Providers quote the key that they refuse."""
    return (report.masked(text, attempt) or "")[:MAX_REASON]


async def _error_text(call: Call, until: float) -> bytes:
    """The next of an error that another target's answer may make worthless. Raises UpstreamLost."""
    try:
        async with asyncio.timeout_at(until):
            return await call.read()
    except TimeoutError:
        raise UpstreamLost(Lost("timeout", "an error's text does not end")) from None


def _kept_bytes(plan: Plan) -> int:
    """How much of a body that passes by is kept to be sent again."""
    return plan.max_body or MAX_KEPT


async def _next_event(call: Call) -> Event:
    try:
        chunk = await call.read()
    except UpstreamLost as lost:
        return lost.lost
    return Data(chunk) if chunk else End()


async def _continue(request: web.BaseRequest) -> None:
    """Have a client send its body that waits for our word (RFC 9110 section 10.1.1)."""
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
