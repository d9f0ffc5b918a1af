"""What the stand-in provider's endpoints share: errors, JSON bodies, parameter checks, streams.

Errors have the shape and texts of OpenAI's API ("Error codes" in its documentation), so that a
client's error handling can be tried out.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

_MOST_METADATA: Final = 16
_LONGEST_METADATA: Final = 512
FINGERPRINT: Final = "fp_stand_in_kong_ai_proxy"
STAND_IN: Final = {"X-Stand-In": "kong-ai-proxy"}
POLL_SOON: Final = {"openai-poll-after-ms": "50"}  # OpenAI's clients wait so long between polls

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]  # method, path, handler


@dataclass(frozen=True)
class Settings:
    """How one stand-in provider behaves.

    `api_key` None: every caller is welcome. `word_seconds`: the pause after each streamed event.
    """

    api_key: str | None = None
    word_seconds: float = 0.0


SETTINGS: Final = web.AppKey("settings", Settings)

_KEEP_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A request as it reached the provider, for tests that ask what was sent."""

    method: str
    path: str  # with the query, percent-encoding kept
    headers: Mapping[str, str]  # case-insensitive
    head: bytearray = field(default_factory=bytearray)  # grows while the body arrives

    @property
    def body(self) -> bytes:
        """The first MiB of what was read of the body."""
        return bytes(self.head)

    def note(self, chunk: bytes) -> None:
        """A piece of the body has been read."""
        self.head.extend(chunk[: _KEEP_BYTES - len(self.head)])


SEEN: Final[ContextVar[Seen]] = ContextVar("seen")  # of the request being answered


class ApiError(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: Json = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }


def json_response(
    data: Json, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer; lists of numbers and other plain values only."""
    return web.Response(
        body=orjson.dumps(data),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def read_json(request: web.Request, *, optional: bool = False) -> Json:
    """The request's JSON object. Raises ApiError 400, 413 or 415.

    With `optional`, no body at all is an empty object.
    """
    if optional and not await request.read():
        return {}
    if request.content_type != "application/json":
        raise ApiError(
            415,
            f"Unsupported content type: '{request.content_type}'. This API method only accepts "
            "'application/json' requests, but you specified the header "
            f"'Content-Type: {request.headers.get('Content-Type', '')}'.",
        )
    raw = await request.read()  # HTTPRequestEntityTooLarge becomes 413 in the middleware
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you "
            f"aren't using your HTTP library correctly. The parser said: {error}.)",
        ) from None
    if not isinstance(body, dict):
        raise wrong_type("body", "an object", body)
    raise_on_demand(body.get("model"))
    return body


_ON_DEMAND: Final = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-stand-in."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again in 1s."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}


def raise_on_demand(model: object) -> None:
    """The model names `error-400` to `error-599` ask for that status."""
    text = model.removeprefix("error-") if isinstance(model, str) else ""
    if text == model or not (text.isascii() and text.isdigit() and 400 <= int(text) <= 599):
        return
    status = int(text)
    default = ("server_error" if status >= 500 else "invalid_request_error", None, None)
    kind, code, message = _ON_DEMAND.get(status, default)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    message = message or f"The model name asked for an answer with status {status}."
    raise ApiError(status, message, kind=kind, code=code, headers=headers)


async def send_events(
    request: web.Request, events: Iterable[Json], *, done: bool = True
) -> web.StreamResponse:
    """Server-sent events, one JSON object each, then `[DONE]`."""
    frames = (b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    return await _send_frames(request, frames, b"data: [DONE]\n\n" if done else b"")


async def send_named_events(
    request: web.Request, events: Iterable[tuple[str, Json]], last: bytes = b""
) -> web.StreamResponse:
    """Server-sent events with names, then `last` as it stands."""
    frames = (
        b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
        for name, event in events
    )
    return await _send_frames(request, frames, last)


async def _send_frames(
    request: web.Request, frames: Iterable[bytes], last: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
        }
    )
    await response.prepare(request)
    pause = request.app[SETTINGS].word_seconds
    for frame in frames:
        await response.write(frame)
        if pause:
            await asyncio.sleep(pause)
    if last:
        await response.write(last)
    await response.write_eof()
    return response


async def label(_: web.Request, response: web.StreamResponse) -> None:
    """Put the stand-in's name and an id on every answer (for aiohttp's on_response_prepare)."""
    response.headers.update(STAND_IN)
    response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"


def new_id(prefix: str) -> str:
    """An id as OpenAI writes them: `chatcmpl-` and random letters."""
    return f"{prefix}{uuid.uuid4().hex}"


def now() -> int:
    """Seconds since the epoch, for `created`."""
    return int(time.time())


# -- parameter checks ----------------------------------------------------------------------------


def kind_of(value: object) -> str:
    """What OpenAI's messages call the type of a JSON value."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]


def wrong_type(param: str, expected: str, value: object) -> ApiError:
    return ApiError(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {kind_of(value)} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(param: str, value: object, supported: Iterable[object]) -> ApiError:
    *first, last = (f"'{option}'" for option in supported)
    options = f"{', '.join(first)} and {last}" if first else last
    return ApiError(
        400,
        f"Invalid value: '{value}'. Supported values are: {options}.",
        param=param,
        code="invalid_value",
    )


def missing(param: str) -> ApiError:
    return ApiError(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


_KINDS: Final[dict[str, Callable[[object], bool]]] = {
    "a string": lambda value: isinstance(value, str),
    "a boolean": lambda value: isinstance(value, bool),
    "an integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a decimal": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "an array": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
    "a string or array of strings": lambda value: (
        isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    ),
    "a string or an object": lambda value: isinstance(value, str | dict),
    "anything": lambda _: True,  # checked by the endpoint itself
}


@dataclass(frozen=True)
class Rule:
    """What one parameter may be: its type in OpenAI's words, its range, its values."""

    kind: str
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] = ()

    def check(self, param: str, value: object) -> None:
        """Raise ApiError 400 unless `value` keeps the rule."""
        if not _KINDS[self.kind](value):
            raise wrong_type(param, self.kind, value)
        if self.options and value not in self.options:
            raise wrong_value(param, value, self.options)
        if isinstance(value, int | float):
            self._check_range(param, value)

    def _check_range(self, param: str, value: float) -> None:
        if self.low is not None and value < self.low:
            self._raise_range(param, value, "minimum", f">= {self.low:g}")
        if self.high is not None and value > self.high:
            self._raise_range(param, value, "maximum", f"<= {self.high:g}")

    def _raise_range(self, param: str, value: float, limit: str, expected: str) -> None:
        name = self.kind.split()[-1]
        side = "below" if limit == "minimum" else "above"
        raise ApiError(
            400,
            f"Invalid '{param}': {name} {side} {limit} value. Expected a value {expected}, but got "
            f"{value} instead.",
            param=param,
            code=f"{name}_{side}_{limit[:3]}_value",
        )


def check_params(
    body: Json, rules: Mapping[str, Rule], required: tuple[str, ...], path: str = ""
) -> Json:
    """The object without its nulls, after checking every member. Raises ApiError 400.

    `path` names the object where it is not the body itself.
    """
    unknown = [name for name in body if name not in rules]
    if unknown and path:
        where = f"{path}.{unknown[0]}"
        raise ApiError(400, f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter")
    if unknown:
        raise ApiError(400, f"Unrecognized request argument supplied: {unknown[0]}")
    given = {name: value for name, value in body.items() if value is not None}
    for name in required:
        if name not in given:
            if name == "model" and not path:
                raise ApiError(400, "you must provide a model parameter")
            raise missing(f"{path}.{name}" if path else name)
    for name, value in given.items():
        rules[name].check(f"{path}.{name}" if path else name, value)
    check_metadata(given.get("metadata", {}))
    if "stream_options" in given and not given.get("stream"):
        raise ApiError(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return given


def check_length(param: str, value: str, most: int, *, least: int = 0) -> None:
    """Raise ApiError 400 unless a text has between `least` and `most` characters."""
    side = "long" if len(value) > most else "short" if len(value) < least else ""
    if side:
        limit, count = ("maximum", most) if side == "long" else ("minimum", least)
        raise ApiError(
            400,
            f"Invalid '{param}': string too {side}. Expected a string with {limit} length {count}, "
            f"but got a string with length {len(value)} instead.",
            param=param,
            code=f"string_{'above' if side == 'long' else 'below'}_{limit[:3]}_length",
        )


def member(owner: Json, name: str, path: str, rule: Rule) -> Any:
    """A required member of an object. Raises ApiError 400 when absent or of a wrong type."""
    where = f"{path}.{name}"
    if owner.get(name) is None:
        raise missing(where)
    rule.check(where, owner[name])
    return owner[name]


def each(items: list[Any], path: str, check: Callable[[Json, str], None]) -> None:
    """Check every item, an object, with its path. Raises ApiError 400."""
    for at, item in enumerate(items):
        where = f"{path}[{at}]"
        if not isinstance(item, dict):
            raise wrong_type(where, "an object", item)
        check(item, where)


def check_metadata(metadata: Json) -> None:
    """Metadata are up to 16 texts. Raises ApiError 400."""
    if len(metadata) > _MOST_METADATA:
        raise ApiError(
            400,
            f"Invalid 'metadata': too many properties. Expected an object with at most "
            f"{_MOST_METADATA} properties, but got an object with {len(metadata)} properties "
            "instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{name}", "a string", value)
        check_length(f"metadata.{name}", value, _LONGEST_METADATA)


def wants_usage(body: Json) -> bool:
    """Whether a streamed answer ends with a chunk that carries the usage."""
    options = body.get("stream_options") or {}
    return bool(body.get("stream")) and options.get("include_usage") is True
