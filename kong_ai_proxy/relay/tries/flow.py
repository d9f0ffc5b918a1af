"""A request that takes several calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from typing_extensions import override

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import (
    Action,
    Data,
    End,
    Env,
    Event,
    Head,
    NextCall,
    Pause,
    Received,
    Take,
    Woken,
)
from kong_ai_proxy.providers.flow import Send
from kong_ai_proxy.relay.incoming import outgoing_headers
from kong_ai_proxy.relay.tries.base import Try, Unsuited
from kong_ai_proxy.relay.upstream import Call, UpstreamLost


class FlowTry(Try):
    """The Attempt says which call is next, and what to wait for."""

    _is_abandoned = False

    @override
    async def _ask(self, env: Env) -> None:
        try:
            actions = self.attempt.begin(env)
        except Refused as refused:
            raise Unsuited(refused) from None
        try:
            await self._follow(actions)
        finally:
            if not self._down.ended:  # the client has left, or it is our own fault
                self._is_abandoned = True
                self._carrying.upstream.later(self._follow(self.attempt.abandon()))

    async def _follow(self, actions: Iterator[Action]) -> None:
        """Do what is asked for, from these actions on, until nothing more is."""
        call: Call | None = None
        try:
            while True:
                asked = await self._do_until_asked(actions)
                if isinstance(asked, NextCall):
                    if call is not None:
                        call.release()
                    call, event = await self._next_call(asked.send)
                    del asked  # and with it a part of a file that was sent
                elif isinstance(asked, Take):
                    taken = await self._carrying.body.take()
                    if isinstance(taken, Refused):
                        actions = self.attempt.broken(taken)
                        continue
                    event = Received(taken)
                elif isinstance(asked, Pause):
                    await asyncio.sleep(asked.seconds)
                    event = Woken(time.time())
                elif call is not None and not self._is_done:
                    event = await _next_event(call)
                else:
                    return
                actions = self.attempt.feed(event)
        finally:
            if call is not None:
                call.release()

    @property
    def _is_done(self) -> bool:
        """Whether no more events are needed. A flow that only puts in order what it has left does
        not care for the answer that the client has from somebody else."""
        return self.attempt.is_over or (self._down.ended and not self._is_abandoned)

    async def _do_until_asked(self, actions: Iterator[Action]) -> Action | None:
        """Do what can be done at once. The action that asks for something to happen."""
        for action in actions:
            if isinstance(action, (NextCall, Take, Pause)):
                return action
            await self._do_one(action)
            await asyncio.sleep(0)  # each may be the outcome of some work
        return None

    async def _next_call(self, send: Send) -> tuple[Call | None, Event]:
        carrying = self._carrying
        outgoing = self.attempt.request(send, await self._env())
        # What is told of it is not the place of a poll, or of an object.
        self._place = self._place or outgoing.address
        self._outgoing = outgoing._replace(body=None)  # of a file's part there is one at a time
        body = outgoing.body if isinstance(outgoing.body, bytes) and outgoing.body else None
        headers = outgoing_headers(carrying.client, outgoing)
        try:
            call = await carrying.upstream.send(
                outgoing.method, outgoing.address, headers, body, carrying.timeouts
            )
        except UpstreamLost as lost:
            self.sent = self.sent or lost.sent
            return None, lost.lost
        self.sent, self._ip = True, self._ip or call.ip
        return call, Head(call.head)


async def _next_event(call: Call) -> Event:
    try:
        chunk = await call.read()
    except UpstreamLost as lost:
        return lost.lost
    return Data(chunk) if chunk else End()
