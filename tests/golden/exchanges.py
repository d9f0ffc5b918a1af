"""Golden fixtures of requests that may take several calls, and whose bodies may be forms or files.

They lie in exchange_fixtures/, a folder for each row of the matrix. A file has these members:
    source, note, cells, config: as fixtures in fixtures/ have them (fixture.py). `plugin` where
        the configuration is not ai-proxy's; `llm_format` stands in `config`. Without `cells` it is
        the one that the file's name begins with: gemini/batches-done is for gemini-batches.
    request: the client's. `method`, `path`, `query`, `headers` where they are not the usual ones.
        Its body is `json`, or `form`: a list of {name, value} and of {name, filename, type, and
        `base64` or `text`}; neither for none.
    exchanges: what the provider is asked and answers, one after the other:
        upstream: `method`, `url`, `headers` that matter (null for one that must not be there), and
            the body: `json`, `text`, `base64` or `form`; `unchanged` where the client's own bytes
            go on; none of them for no body.
        answer: `status`, `headers`, and `json`, `text` or `base64`.
    client: what the client gets: `status`, `headers`, and `json`, `text` or `base64`; `unchanged`
        where it is what the last answer was.
    usage: prompt and completion tokens that are counted.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

from kong_ai_proxy import config
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.messages import (
    Action,
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
    NextCall,
    Pause,
    Received,
    ResponseHead,
    Take,
    UpstreamRequest,
    Woken,
)
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.formats.form import parts_of
from tests.golden import credentials
from tests.golden.checks import same_json
from tests.golden.fixture import ID, NOW, credential_of, url

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "exchange_fixtures"
BOUNDARY = "golden-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True)
class Exchanges:
    """One fixture. `name` is its path below exchange_fixtures/, without its ending."""

    name: str
    source: str
    cells: tuple[str, ...]
    config: Json
    request: Json
    exchanges: list[Json]
    client: Json
    plugin: str = "ai-proxy"
    usage: tuple[int, int] | None = None


@dataclass
class Played:
    """What was done."""

    asked: list[tuple[UpstreamRequest, bytes]] = field(default_factory=list)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    attempt: Attempt | None = None


@cache
def load(name: str) -> Exchanges:
    """The fixture of this name."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    told: Json = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    told.pop("note", None)
    usage = told.pop("usage", None)
    cells = tuple(told.pop("cells", (_cell(name),)))
    return Exchanges(name=name, cells=cells, usage=tuple(usage) if usage else None, **told)


def _cell(name: str) -> str:
    """Where a file names none it is that of its folder and of the first word of its name."""
    folder, _, file = name.partition("/")
    return f"{folder}-{file.partition('-')[0]}"


def names() -> list[str]:
    """Of all fixtures."""
    found = sorted(path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml"))
    return [each.as_posix() for each in found]


def check(golden: Exchanges) -> None:
    """What is asked and answered is what the fixture says."""
    played = play(golden)
    assert len(played.asked) == len(golden.exchanges)
    for (upstream, body), exchange in zip(played.asked, golden.exchanges, strict=True):
        _check_request(golden, upstream, body, exchange["upstream"])
    expected = golden.client
    assert played.status == expected.get("status", 200), played.body
    for name, value in expected.get("headers", {}).items():
        assert played.headers.get(name) == value
    if expected.get("unchanged"):
        assert played.body == _bytes(golden.exchanges[-1]["answer"])
    else:
        _same(played.body, expected)
    if golden.usage is not None:
        assert played.attempt is not None
        counted = played.attempt.usage
        assert counted is not None
        assert (counted.prompt_tokens, counted.completion_tokens) == golden.usage


def _check_request(golden: Exchanges, upstream: UpstreamRequest, body: bytes, told: Json) -> None:
    assert upstream.method == told.get("method", "POST")
    assert url(upstream) == told["url"]
    headers = told.get("headers", {})
    for name, value in headers.items():
        assert upstream.set_headers.get(name) == value
    credentials.check(golden.config, upstream, headers)
    if told.get("unchanged"):
        assert upstream.body is None
    elif "form" in told:
        kind = (
            upstream.set_headers.get("content-type") or f"multipart/form-data;boundary={BOUNDARY}"
        )
        found = [(each.name, each.filename, each.content) for each in parts_of(kind, body)]
        assert found == [_part(each) for each in told["form"]]
    else:
        _same(body, told)


def _same(found: bytes, told: Json) -> None:
    if "json" in told:
        same_json(orjson.loads(found), told["json"])
    else:
        assert found == _bytes(told)


def _bytes(told: Json) -> bytes:
    if "json" in told:
        return orjson.dumps(told["json"])
    if "base64" in told:
        return base64.b64decode(told["base64"])
    return str(told.get("text", "")).encode()


def _part(told: Json) -> tuple[str, str | None, bytes]:
    if "filename" in told:
        return told["name"], told["filename"], _bytes(told)
    return told["name"], None, str(told["value"]).encode()


def _form(fields: list[Json]) -> bytes:
    out = b""
    for told in fields:
        name, filename, content = _part(told)
        out += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if filename is not None:
            out += f'; filename="{filename}"\r\nContent-Type: {told["type"]}'.encode()
        out += b"\r\n\r\n" + content + b"\r\n"
    return out + f"--{BOUNDARY}--\r\n".encode()


def _client(told: Json) -> tuple[ClientRequest, bytes]:
    headers: dict[str, str] = {}
    body = b""
    if "form" in told:
        body = _form(told["form"])
        headers["content-type"] = FORM
    elif "json" in told:
        body = orjson.dumps(told["json"])
        headers["content-type"] = "application/json"
    if body:
        headers["content-length"] = str(len(body))
    headers |= told.get("headers", {})
    client = ClientRequest(
        method=told.get("method", "POST"),
        path=told.get("path", "/ai"),
        query=told.get("query", ""),
        headers={name: (value,) for name, value in headers.items()},
    )
    return client, body


def play(golden: Exchanges, size: int = 0) -> Played:
    """All of it, as the relay drives it. `size`: bytes of the pieces in which bodies come, 0 for
    whole ones."""
    client, body = _client(golden.request)
    plan = Plan(config.parse(golden.plugin, golden.config))
    plan.check_available()
    plan.check_head(client)
    attempt = plan.attempt(client, body if plan.body(client) is Body.READ else None, relayed=True)
    played = Played(attempt=attempt)
    env = Env(NOW, ID, credential_of(attempt))
    if attempt.is_flow:
        _flow(golden, attempt, env, _pieces(body, size), played, size)
    else:
        _one(golden, attempt, env, body, played, size)
    return played


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)] if size else [body]


def _one(
    golden: Exchanges, attempt: Attempt, env: Env, body: bytes, played: Played, size: int
) -> None:
    """A request that is one call; a WebSocket's is its handshake."""
    upstream = attempt.start(env)
    sent = upstream.body
    if sent is not None and not isinstance(sent, bytes):
        sent = b"".join(map(sent.feed, _pieces(body, size))) + sent.end()
    played.asked.append((upstream, sent if sent is not None else body))
    if attempt.is_websocket:
        played.status = 101
        return
    for event in _events(golden.exchanges[0]["answer"], size):
        for action in attempt.feed(event):
            _do(action, played)


def _flow(
    golden: Exchanges, attempt: Attempt, env: Env, body: list[bytes], played: Played, size: int
) -> None:
    answers = [exchange["answer"] for exchange in golden.exchanges]
    taken = [piece for piece in reversed(body) if piece]
    events: list[Event] = []
    actions = attempt.begin(env)
    now = env.now
    while True:
        for action in actions:
            if isinstance(action, NextCall):
                upstream = attempt.request(action.send, env)
                sent = upstream.body
                played.asked.append((upstream, sent if isinstance(sent, bytes) else b""))
                events = _events(answers[len(played.asked) - 1], size)
                break
            if isinstance(action, Take):
                events = [Received(taken.pop() if taken else b"")]
                break
            if isinstance(action, Pause):
                now += action.seconds
                events = [Woken(now)]
                break
            _do(action, played)
        if not events:
            return
        actions = attempt.feed(events.pop(0))


def _events(answer: Json, size: int) -> list[Event]:
    headers = {"content-type": "application/json"} if "json" in answer else {}
    headers |= answer.get("headers", {})
    body = _bytes(answer)
    head = ResponseHead(answer.get("status", 200), tuple(headers.items()))
    return [Head(head), *(Data(piece) for piece in _pieces(body, size) if piece), End()]


def _do(action: Action, played: Played) -> None:
    match action:
        case Commit(head):
            played.status, played.headers = head.status, dict(head.headers)
        case Emit(chunk):
            played.body += chunk
        case Fail(_, _, refused):
            played.status, played.body, headers = refused.answer()
            played.headers = headers
        case Finish():
            pass
        case _:
            raise AssertionError(action)
