"""Golden fixtures: what a client asks, what the provider is asked, what it answers, what the client
gets. Each is a file of its own in fixtures/ and runs through one whole attempt.

A file has these members:
    source: the page of the provider's public API reference that its payloads follow.
    note: where two sources disagree, which one was followed; and what else a reader should know.
    cells: the cells of the matrix that it is the evidence for, such as cohere-chat.
    config: the plugin's configuration.
    request: the client's `body`; `path`, `query` and `headers` where they are not the usual ones.
    upstream: the `url`, `headers` that matter and `body` that the provider gets. The body is
        `unchanged` where the client's own bytes go on.
    answer: the provider's. `json`, or `sse` or `ndjson` as text, or `frames` of an AWS event stream
        as [event type, payload]; `status`, `headers` and `type` where they are not the usual ones.
    client: what the client gets. `json`, or `sse` or `frames` to the byte, or a `body` that is
        `unchanged`; `crlf` where lines of `sse` end with CR LF; `status` and `headers` where they
        are not the usual ones, null for a header that must not be there.
    usage: prompt and completion tokens that are counted, where the configuration wants statistics.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

from kong_ai_proxy import config
from kong_ai_proxy.auth.identity import BearerToken, Credential
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Env,
    Fail,
    Finish,
    Head,
    ResponseHead,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.plan import Plan
from tests.providers.aws import frame

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "fixtures"
NOW = 1_755_000_000.0
ID = "GoldenGoldenGoldenGolden"
AWS = AwsCredentials("AKIASTANDIN", "golden-secret-access-key")
GOOGLE = BearerToken("golden-google-token")
TYPES = {
    "json": "application/json",
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "frames": "application/vnd.amazon.eventstream",
}


def credential_of(attempt: Attempt) -> Credential | None:
    """As whom a cloud is called in fixtures."""
    if attempt.identity is None:
        return None
    return AWS if attempt.model.provider == "bedrock" else GOOGLE


@dataclass(frozen=True)
class Golden:
    """One fixture. `name` is its path below fixtures/, without its ending."""

    name: str
    source: str
    cells: tuple[str, ...]
    config: Json
    request: Json
    upstream: Json
    answer: Json
    client: Json
    usage: tuple[int, int] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the provider's answer is a stream."""
        return not {"sse", "ndjson", "frames"}.isdisjoint(self.answer)

    @property
    def sent(self) -> bytes:
        """The client's body."""
        return orjson.dumps(self.request["body"])

    @property
    def answered(self) -> bytes:
        """The provider's body."""
        return body_bytes(self.answer)

    def attempt(self, now: float = NOW, **headers: str) -> tuple[Attempt, UpstreamRequest]:
        """A started attempt, and what goes to the provider; `headers` of the client's are added."""
        plan = _plan(self.name)
        client = _client(self.request, len(self.sent), headers)
        plan.check_available()
        plan.check_head(client)
        attempt = plan.attempt(client, self.sent, relayed=True)
        return attempt, attempt.start(Env(now, ID, credential_of(attempt)))

    def head(self, **changes: str) -> Head:
        """The head of the provider's answer."""
        kind = next((kind for kind in TYPES if kind in self.answer), "json")
        named = {"content-type": self.answer.get("type", TYPES[kind])}
        named |= self.answer.get("headers", {}) | changes
        return Head(ResponseHead(self.answer.get("status", 200), tuple(named.items())))

    def play(self, chunks: Iterable[bytes] | None = None, **changes: str) -> Played:
        """The answer in these pieces, or in one; `changes` are made to its headers."""
        attempt, _ = self.attempt()
        pieces = [self.answered] if chunks is None else chunks
        return play(attempt, self.head(**changes), pieces)


@dataclass(frozen=True)
class Played:
    """What a client got."""

    attempt: Attempt
    actions: Sequence[Action]

    @property
    def body(self) -> bytes:
        """All of it. What was not committed is the answer of a failure."""
        if isinstance(self.actions[0], Fail):
            return self.actions[0].answer.answer()[1]
        return b"".join(action.chunk for action in self.actions if isinstance(action, Emit))

    @property
    def head(self) -> ResponseHead:
        """Status and headers."""
        first = self.actions[0]
        if isinstance(first, Fail):
            status, _, headers = first.answer.answer()
            return ResponseHead(status, tuple(headers.items()))
        assert isinstance(first, Commit), first
        return first.head

    @property
    def is_clean(self) -> bool:
        """Whether the connection ends as HTTP has it."""
        return not any(isinstance(action, Abort) for action in self.actions)


def play(attempt: Attempt, head: Head, chunks: Iterable[bytes]) -> Played:
    """Everything that is done about an answer; the order of the actions is checked."""
    actions = [*attempt.feed(head)]
    for chunk in chunks:
        actions += attempt.feed(Data(chunk))
    actions += attempt.feed(End())
    _check_order(actions)
    return Played(attempt, actions)


def _check_order(actions: Sequence[Action]) -> None:
    """Commit, Emit, Finish or Abort; or Fail alone."""
    if isinstance(actions[0], Fail):
        assert len(actions) == 1, actions
        return
    assert isinstance(actions[0], Commit), actions[0]
    assert all(isinstance(action, Emit) and action.chunk for action in actions[1:-1]), actions
    assert isinstance(actions[-1], Finish | Abort), actions[-1]


def body_bytes(body: Json) -> bytes:
    """The bytes of a body as a fixture writes it."""
    if "sse" in body:
        raw = f"{body['sse'].rstrip()}\n\n".encode()
        return raw.replace(b"\n", b"\r\n") if body.get("crlf") else raw
    if "ndjson" in body:
        return f"{body['ndjson'].rstrip()}\n".encode()
    if "frames" in body:
        return b"".join(event_frame(kind, value) for kind, value in body["frames"])
    return orjson.dumps(body["json"])


def event_frame(kind: str, value: Json) -> bytes:
    """One event of an AWS event stream. The events of InvokeModelWithResponseStream have the
    model's own in base64, and are written here as what it says."""
    told = {"bytes": base64.b64encode(orjson.dumps(value)).decode()} if kind == "chunk" else value
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return frame(headers, orjson.dumps(told))


def _client(request: Json, length: int, added: dict[str, str]) -> ClientRequest:
    named = {"content-type": "application/json", "content-length": str(length)}
    named |= request.get("headers", {})
    named |= {name.replace("_", "-"): value for name, value in added.items()}
    return ClientRequest(
        method=request.get("method", "POST"),
        path=request.get("path", "/ai"),
        query=request.get("query", ""),
        headers={name: (value,) for name, value in named.items()},
    )


@cache
def _plan(name: str) -> Plan:
    return Plan(config.parse("ai-proxy", load(name).config))


@cache
def load(name: str) -> Golden:
    """The fixture of this name."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    told: Json = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    told.pop("note", None)
    usage = told.pop("usage", None)
    cells = tuple(told.pop("cells", ()))
    return Golden(name=name, cells=cells, usage=tuple(usage) if usage else None, **told)


def names(*folders: str) -> list[str]:
    """Of the fixtures in these folders, or in all."""
    found = sorted(path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml"))
    return [each.as_posix() for each in found if not folders or each.parts[0] in folders]


def fixtures(*folders: str) -> Iterator[Golden]:
    """The fixtures in these folders, or all."""
    return map(load, names(*folders))


def url(upstream: UpstreamRequest) -> str:
    """Where the request goes, as a client library would be told; default ports are left out."""
    scheme, host, port, path, query = upstream.address
    default = {"http": 80, "https": 443}[scheme] == port
    place = host if default else f"{host}:{port}"
    return f"{scheme}://{place}{path}" + (f"?{query}" if query else "")
