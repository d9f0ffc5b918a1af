"""Clients of the six formats: a question of each, and how each is told of an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped, unused-ignore]

from kong_ai_proxy import config
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.messages import ClientRequest, Env, UpstreamRequest
from kong_ai_proxy.exchange.plan import Plan
from tests.golden import fixture
from tests.golden.fixture import AWS, GOOGLE, ID, NOW, Golden, Played

Json = dict[str, Any]

QUESTION = "What is Zürich known for?"
_SAID = [{"role": "user", "content": QUESTION}]
_CONTENTS = [{"role": "user", "parts": [{"text": QUESTION}]}]
_BLOCKS = [{"role": "user", "content": [{"text": QUESTION}]}]


class Client(NamedTuple):
    """How one format asks; `path` has {model}."""

    path: str
    stream_path: str
    body: Json
    query: str = ""
    streams_in_body: bool = False


CLIENTS: Mapping[str, Client] = {
    "openai": Client("/ai", "/ai", {"messages": _SAID}, streams_in_body=True),
    "anthropic": Client(
        "/v1/messages",
        "/v1/messages",
        {"messages": _SAID, "max_tokens": 100},
        streams_in_body=True,
    ),
    "gemini": Client(
        "/v1beta/models/{model}:generateContent",
        "/v1beta/models/{model}:streamGenerateContent",
        {"contents": _CONTENTS},
        query="alt=sse",
    ),
    "bedrock": Client(
        "/model/{model}/converse", "/model/{model}/converse-stream", {"messages": _BLOCKS}
    ),
    "cohere": Client("/v2/chat", "/v2/chat", {"messages": _SAID}, streams_in_body=True),
    "huggingface": Client("/generate", "/generate_stream", {"inputs": QUESTION}),
}
HUGGINGFACE_CHAT = Client(
    "/v1/chat/completions", "/v1/chat/completions", {"messages": _SAID}, streams_in_body=True
)


def ask(
    llm_format: str, client: Client, golden: Golden, *, stream: bool
) -> tuple[Attempt, UpstreamRequest]:
    """A started attempt of this client with the provider of a fixture."""
    configured = {**golden.config, "llm_format": llm_format}
    plan = Plan(config.parse("ai-proxy", configured))
    body = {**client.body, **({"stream": stream} if client.streams_in_body else {})}
    raw = orjson.dumps(body)
    path = client.stream_path if stream else client.path
    asked = ClientRequest(
        method="POST",
        path=path.format(model=golden.config["model"]["name"].replace(":", "%3A")),
        query=client.query if stream else "",
        headers={"content-type": ("application/json",), "content-length": (str(len(raw)),)},
    )
    plan.check_available()
    plan.check_head(asked)
    attempt = plan.attempt(asked, raw, relayed=True)
    credential = None
    if attempt.identity is not None:
        credential = AWS if attempt.model.provider == "bedrock" else GOOGLE
    return attempt, attempt.start(Env(NOW, ID, credential))


# ---- errors


def error_message(llm_format: str, played: Played) -> str:
    """The text of an error that is the whole answer. Raises AssertionError for anything else."""
    assert played.is_clean
    assert played.head.status >= 400
    assert played.head.header("content-type") == "application/json"
    if llm_format == "bedrock":
        assert (played.head.header("x-amzn-errortype") or "").endswith("Exception")
    return _MESSAGES[llm_format](orjson.loads(played.body))


def _openai(value: Json) -> str:
    return str(value["error"]["message"])


def _anthropic(value: Json) -> str:
    assert value["type"] == "error"
    assert value["error"]["type"].endswith("_error")
    return str(value["error"]["message"])


def _gemini(value: Json) -> str:
    assert value["error"]["code"] >= 400
    assert value["error"]["status"].isupper()
    return str(value["error"]["message"])


def _bedrock(value: Json) -> str:
    assert value["__type"].endswith("Exception")
    return str(value["message"])


def _cohere(value: Json) -> str:
    return str(value["message"])


def _huggingface(value: Json) -> str:
    if isinstance(value["error"], dict):  # of its chat, which is OpenAI's
        return _openai(value)
    assert value["error_type"]
    return str(value["error"])


_MESSAGES: Mapping[str, Callable[[Json], str]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "cohere": _cohere,
    "huggingface": _huggingface,
}


def frames(body: bytes) -> list[tuple[str, str, Json]]:
    """The messages of an AWS event stream, read by botocore: message type, name and payload."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [
        (
            each.headers[":message-type"],
            each.headers.get(":event-type") or each.headers[":exception-type"],
            orjson.loads(each.payload),
        )
        for each in buffer
    ]


def _events(body: bytes) -> list[tuple[str, Any]]:
    """Server-sent events: their names and data. Raises AssertionError for a cut one."""
    text = body.decode().replace("\r\n", "\n")  # Google ends its lines so
    assert text.endswith("\n\n")
    found = []
    for block in text.rstrip("\n").split("\n\n"):
        lines = dict(line.split(":", 1) for line in block.split("\n"))
        data = lines["data"].strip()
        found.append(
            (lines.get("event", "").strip(), data if data == "[DONE]" else orjson.loads(data))
        )
    return found


def stream_error(llm_format: str, played: Played) -> str:
    """The text of the error that ends a stream, after which nothing looks like a good end."""
    assert played.head.status == 200
    if llm_format == "bedrock":
        assert played.head.header("content-type") == fixture.TYPES["frames"]
        *before, (kind, _, payload) = frames(played.body)
        assert kind == "exception"
        assert not {"messageStop", "metadata"} & {name for _, name, _ in before}
        return str(payload["message"])
    assert played.head.header("content-type") == fixture.TYPES["sse"]
    *events, (name, last) = _events(played.body)
    return _stream_error(llm_format, events, name, last)


def _stream_error(llm_format: str, events: list[tuple[str, Any]], name: str, last: Any) -> str:
    assert "[DONE]" not in [data for _, data in events]
    if llm_format == "cohere":
        assert last["type"] == "message-end"
        assert last["delta"]["finish_reason"] == "ERROR"
        return str(last["delta"]["error"])
    if llm_format == "anthropic":
        assert name == "error"
        assert "message_stop" not in [each for each, _ in events]
    return _MESSAGES[llm_format](last)
