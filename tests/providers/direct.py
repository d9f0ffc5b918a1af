"""A stand-in's answers without a network: for flows that are driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

from kong_ai_proxy.providers.flow import Reply, Send
from tests.providers.upstream import Recorded, Turn, Upstream


def answers(upstream: Upstream, credentials: Mapping[str, str]) -> Callable[[Send], Reply]:
    """What gives the reply to each Send, to which the exchange would add `credentials`. The
    stand-in is not started; it scripts as usual."""

    def answer(send: Send) -> Reply:
        default = {"content-type": "application/json"} if send.body else {}
        headers = CIMultiDict({**default, **send.headers, **credentials})
        seen = Recorded(
            send.method, send.path, send.query, CIMultiDictProxy(headers), send.body or b""
        )
        upstream.requests.append(seen)
        turns = upstream._turns
        turn: Turn = turns.pop(0) if len(turns) > 1 else turns[0]
        reply = upstream._reply(seen, turn)
        told = {"content-type": reply.content_type, **reply.headers, **turn.headers}
        lower = {name.lower(): value for name, value in told.items()}
        return Reply(reply.status, reply.body, lower)

    return answer
