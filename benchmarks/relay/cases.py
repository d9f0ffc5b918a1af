"""What is asked and answered: both ends of the benchmark and the relay's plans are made of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from benchmarks.conversion import streams

MODEL = "gpt-4o"
CHUNKS = 100
EMBEDDING = 1536
MEGABYTE = 1_000_000
BOUNDARY = "7d3c1e0b9a"
CLIENT_HEADERS = {  # those of the OpenAI SDK, and Kong's
    "Host": "127.0.0.1:8000",
    "Connection": "keep-alive",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "ai.example",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Path": "/v1/chat/completions",
    "X-Real-IP": "192.0.2.7",
    "X-Kong-Request-Id": "5f1ab0d2c6f14c2f9d6d1b8ff0f3a55e",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Authorization": "Bearer client",
    "User-Agent": "OpenAI/Python 2.0.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.0.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "false",
    "X-Stainless-Retry-Count": "0",
}


@dataclass(frozen=True)
class Case:
    """One kind of request with its answer.

    `name` is the first segment of its path, at the system measured and at the upstream.
    """

    name: str
    label: str
    connections: tuple[int, ...]
    request: dict[str, Any]
    answer: tuple[bytes, ...]
    """The body; several pieces make a stream, each written on its own."""
    route_type: str = "llm/v1/chat"
    pause: float = 0.0
    """Seconds between the pieces."""
    logging: dict[str, bool] = field(default_factory=lambda: {"log_statistics": True})
    provider: streams.Streams | None = None
    """Whose format the answer has; None: OpenAI's, as the request."""

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        return len(self.answer) > 1

    @property
    def media_type(self) -> str:
        """Of the answer."""
        if self.provider:
            return self.provider.media_type
        return streams.SSE if self.streams else "application/json"

    @property
    def takes(self) -> float:
        """The least seconds an answer takes."""
        return self.pause * len(self.answer)

    @cached_property
    def body(self) -> bytes:
        """The request's body."""
        return orjson.dumps(self.request)

    def head(self) -> bytes:
        """The request's head."""
        lines = {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        return _head(*target(self.name), lines)

    def is_answered_by(self, body: bytes) -> bool:
        """Whether a client got what the upstream said, but for usage it did not ask for."""
        if not self.streams:
            return body == self.answer[0]
        return body.endswith(b"data: [DONE]\n\n") and _said(body) == self._says

    @property
    def _says(self) -> str:
        return self.provider.says(CHUNKS) if self.provider else _said(b"".join(self.answer))


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    """As Kong sends it on."""
    lines = [f"{method} {path} HTTP/1.1"]
    lines += (f"{name}: {value}" for name, value in (CLIENT_HEADERS | headers).items())
    return "\r\n".join([*lines, "", ""]).encode()


def _said(stream: bytes) -> str:
    events = [orjson.loads(line[6:]) for line in stream.split(b"\n\n")[:-2]]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def _chat(size: int, **more: object) -> dict[str, Any]:
    message = {"role": "user", "content": "x" * max(1, size - 90)}
    return {"model": MODEL, "messages": [message], "temperature": 0.5, **more}


USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def _completion(size: int) -> tuple[bytes, ...]:
    message = {"role": "assistant", "content": "y" * size, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return (
        orjson.dumps(
            {
                "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
                "object": "chat.completion",
                "created": 1741569952,
                "model": "gpt-4o-2024-08-06",
                "choices": [choice],
                "usage": USAGE,
                "service_tier": "default",
                "system_fingerprint": "fp_fc9f1d7035",
            }
        ),
    )


def _event(choices: list[dict[str, Any]], usage: object = None) -> bytes:
    data = {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_fc9f1d7035",
        "choices": choices,
        "usage": usage,
    }
    return b"data: %b\n\n" % orjson.dumps(data)


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event([choice])


def _stream() -> tuple[bytes, ...]:
    words = (_delta({"content": f" token{n:04}"}) for n in range(CHUNKS - 4))
    last = (_delta({}, "stop"), _event([], USAGE), b"data: [DONE]\n\n")
    return (_delta({"role": "assistant", "content": ""}), *words, *last)


def _embedding() -> tuple[bytes, ...]:
    floats = [round(value, 8) for value in random.Random(1).choices((-0.0231, 0.0178), k=EMBEDDING)]
    item = {"object": "embedding", "index": 0, "embedding": floats}
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return (orjson.dumps({"object": "list", "data": [item], "model": MODEL, "usage": usage}),)


def _image() -> tuple[bytes, ...]:
    usage = {"input_tokens": 50, "output_tokens": 50, "total_tokens": 100}
    data = [{"b64_json": "iVBORw0KGgo" + "A" * MEGABYTE}]
    return (orjson.dumps({"created": 1713833628, "data": data, "usage": usage}),)


ONE_AND_MANY = (1, 32)
CASES = (
    Case("chat200", "chat, 200 B", ONE_AND_MANY, _chat(200), _completion(200)),
    Case("chat20k", "chat, 20 kB", ONE_AND_MANY, _chat(20_000), _completion(4_000)),
    Case(
        "payloads",
        "chat, 20 kB, log_payloads",
        (32,),
        _chat(20_000),
        _completion(4_000),
        logging={"log_statistics": True, "log_payloads": True},
    ),
    Case(
        "embeddings",
        f"embeddings, {EMBEDDING:,} floats",
        (32,),
        {"model": MODEL, "input": "The food was delicious and the waiter was friendly."},
        _embedding(),
        "llm/v1/embeddings",
    ),
    Case("sse", f"stream of {CHUNKS} chunks", (16,), _chat(200, stream=True), _stream()),
    Case(
        "paced",
        f"stream of {CHUNKS} chunks, one in 10 ms",
        (64,),
        _chat(200, stream=True),
        _stream(),
        pause=0.01,
    ),
    Case("chat1m", "chat, 1 MB", ONE_AND_MANY, _chat(MEGABYTE), _completion(20_000)),
    Case(
        "image",
        "image, answer 1 MB",
        (8,),
        {"model": MODEL, "prompt": "A cute baby sea otter"},
        _image(),
        "image/v1/images/generations",
    ),
)
STREAM = next(case for case in CASES if case.name == "sse")
"""What translated streams are compared with."""
TRANSLATED = tuple(
    Case(
        each.name,
        f"{each.label}, stream of {CHUNKS} chunks",
        STREAM.connections,
        STREAM.request,
        each.make(CHUNKS),
        provider=each,
    )
    for each in streams.ALL
)
BY_NAME = {case.name: case for case in (*CASES, *TRANSLATED)}

BULK_ROUTE_TYPE = "llm/v1/files"
BULK_PIECES = 100
UPLOAD, DOWNLOAD = "upload", "download"
INSTANCES = (*BY_NAME, UPLOAD, DOWNLOAD)
"""Configurations: what a request's path begins with; places from 1 are the instance ids."""
DIGEST = b"\0" * 32
"""Stands for the digest of each of them."""


def target(name: str) -> tuple[str, str]:
    """Method and request target."""
    return ("GET", "/download/file-1/content") if name == DOWNLOAD else ("POST", f"/{name}")


def config(name: str, upstream: int) -> dict[str, Any]:
    """ai-proxy's configuration for a case or a bulk transfer, with the upstream's port."""
    case = BY_NAME.get(name)
    options: dict[str, Any] = {"upstream_url": f"http://127.0.0.1:{upstream}/{name}"}
    model: dict[str, Any] = {"provider": "openai", "options": options}
    auth = {"header_name": "Authorization", "header_value": "Bearer sk-bench"}
    if case and case.provider:
        model.update(provider=case.provider.name, name=MODEL)
        options.update(case.provider.options)
        auth = case.provider.auth or auth
    return {
        "route_type": case.route_type if case else BULK_ROUTE_TYPE,
        "auth": auth,
        "logging": case.logging if case else {"log_statistics": True},
        "model": model,
    }


def bulk() -> Iterator[bytes]:
    """100 MB in pieces of 1 MB that differ."""
    block = random.Random(1).randbytes(MEGABYTE - 8)
    return (n.to_bytes(8, "big") + block for n in range(BULK_PIECES))


def request_head(name: str) -> bytes:
    """The head of any request."""
    if name in BY_NAME:
        return BY_NAME[name].head()
    lines = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(sum(map(len, request_body(name)))),
    }
    return _head(*target(name), {} if name == DOWNLOAD else lines)


def request_body(name: str) -> Iterator[bytes]:
    """The body of any request; that of the upload is a form with a file."""
    if name in BY_NAME:
        yield BY_NAME[name].body
    elif name == UPLOAD:
        yield (
            f"--{BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f"--{BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="file"; filename="bulk.jsonl"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        yield from bulk()
        yield f"\r\n--{BOUNDARY}--\r\n".encode()
