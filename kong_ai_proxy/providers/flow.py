"""A request that takes several calls to a provider, or other ones than the client's own: an image
that is polled for, a file that goes into a bucket, a batch that is a job elsewhere.

A flow is a generator. It yields what it needs done and gets the result back, so that it knows no
socket and no clock:

    def create(wanted: Wanted) -> Steps:
        reply = yield from sent(Send("POST", "/tasks", body=...), errors)
        while not _is_over(reply):
            yield from waited(2.0)
            reply = yield from sent(Send("GET", f"/tasks/{_id(reply)}"), errors)
        return Result(_answer(reply))

Whatever it raises ends the request: FormatError is the client's fault (400), ProviderFailed the
provider's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import orjson

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.usage import Usage

_NOTHING: Mapping[str, Any] = MappingProxyType({})

OK = 200
FIRST_ERROR = 300
BAD_GATEWAY = 502
GATEWAY_TIMEOUT = 504

# Encoded or not: some servers take %2F for a slash.
_CLIMBS = re.compile(r"(?:\.|%2e){2}", re.IGNORECASE)

MAX_MEDIA = 64 << 20
"""Bytes of an answer that holds images or videos."""

MAX_WAITED = 540.0
"""Seconds that a client is kept waiting for something that is polled for: the Service that the
documentation has allows 600 for an answer."""


class Texts(Protocol):
    """Requests and answers in OpenAI's format inside of files, and the provider's instead.

    The rules of the configuration (its model, its defaults, what the provider refuses) hold for
    them as they do for single requests.
    """

    def real_model(self, named: str) -> str:
        """The real name of a model that a request names. Raises FormatError for another one than
        the configured."""

    def request(
        self, route_type: str, body: Mapping[str, object], codec: ProviderCodec | None = None
    ) -> dict[str, object]:
        """The provider's request; `codec` in place of the one that a single request would have.
        Raises FormatError."""

    def answer(
        self, route_type: str, value: object, codec: ProviderCodec | None = None, *, name: str = ""
    ) -> dict[str, object]:
        """An answer of the provider's, parsed JSON, in OpenAI's format. `name`, letters and digits,
        is what its id is made of where the provider told none. Raises FormatError."""


class Wanted(NamedTuple):
    """What a client asks for, in OpenAI's format."""

    route_type: str
    options: ModelOptions
    """With its templates expanded."""
    model: str = ""
    """The real name, checked against the configuration's; "" where nobody named one."""
    method: str = "POST"
    collection: str = ""
    """Such as files; "" for route types that have none."""
    rest: tuple[str, ...] = ()
    """The path's segments after the collection, decoded: (id,), (id, "content"). Plain: never
    empty, "." or "..", and without slashes."""
    query: Mapping[str, str] = _NOTHING
    """Without credentials; of a parameter that occurs several times the last value."""
    body: Mapping[str, object] = _NOTHING
    """The JSON object; that of `extra_body` is a member like others. Of a form that was read, its
    plain fields."""
    parts: tuple[Part, ...] = ()
    """Of a form that was read, in its order."""
    content_type: str = ""
    """Of the body, for a flow that takes the body itself."""
    range: str = ""
    """Of a download, the bytes that the client wants, as the header Range has it; "" for all."""
    id: str = ""
    """Random, 24 letters and digits."""
    now: float = 0.0
    """Seconds since 1970."""
    texts: Texts | None = None
    provider: str = ""
    """Its name in the configuration, for errors."""
    signs: bool = True
    """Of Bedrock: whether requests are signed, which is what S3 wants. An API key signs nothing."""


# ---- steps


class Send(NamedTuple):
    """Call the provider. Gets a Reply back."""

    method: str
    path: str
    """Percent-encoded; starts with "/"."""
    query: str = ""
    headers: Mapping[str, str] = _NOTHING
    """Beside those of the credentials and the provider's own; names in lower case."""
    body: bytes | None = None
    base_url: str = ""
    """Where it lives elsewhere than the provider's others."""
    service: str = "bedrock"
    """That an AWS signature is for."""
    most: int = 4 << 20
    """Bytes of an answer: enough for a job or a page of a list. Reading more takes long. See
    MAX_MEDIA for images and videos in base64."""
    is_own: bool = True
    """Whether the operator's credentials go with it: not to an address that is signed itself."""


class Receive(NamedTuple):
    """Read the client's body. Gets the next bytes as they arrive, b"" at its end."""


class Wait(NamedTuple):
    """Let time pass. Gets the time, in seconds since 1970."""

    seconds: float


class Reply(NamedTuple):
    """What the provider answered, whole and not compressed."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NOTHING
    """The first value of each; names in lower case."""


Step = Send | Receive | Wait
Steps = Generator[Step, Any, "Result | Passed"]

# ---- results


class Result(NamedTuple):
    """The answer to the client."""

    body: object
    """Dumped as JSON, unless it is bytes."""
    status: int = OK
    media_type: str = "application/json"
    usage: Usage | None = None
    """For the log."""
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the provider has not."""


class Filter(Protocol):
    """Changes an answer's body while it passes. Raises ProviderFailed."""

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets of it."""

    def end(self) -> bytes:
        """The rest."""


ParseError = Callable[[int, bytes], ProviderError]
"""Makes sense of an answer's status and body that is an error, of any content."""


class Passed(NamedTuple):
    """The answer to this request goes to the client as it comes: a download of any size."""

    send: Send
    errors: ParseError
    media_type: str = ""
    """"": the provider's own."""
    filter: Filter | None = None


class ProviderFailed(Exception):  # noqa: N818 - an outcome for the client
    """The provider refused, or its answer makes no sense. `error.status` is the client's; 0 stands
    for 502."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.message)
        self.error = error


class Flow(NamedTuple):
    """What a route type is at a provider that does it otherwise."""

    run: Callable[[Wanted], Steps]
    takes_body: bool = False
    """Whether `run` takes a form by Receive, so that it may be of any size. Else it is read
    whole, at most `max_request_body_size`."""
    collections: tuple[str, ...] = ()
    """In place of the operation's, where a provider has more below one route type."""
    made: Callable[[str, str, ModelOptions], bool] | None = None
    """Whether an id, of a collection such as files, has the form of those that are made here with
    these options, whose templates are not expanded. None: ids have any form."""
    no_form: str = ""
    """What to tell a client that sends a form where none is taken."""


# ---- for flows to use


def sent(send: Send, errors: ParseError) -> Generator[Step, Any, Reply]:
    """The reply to a request that has to succeed. Raises ProviderFailed."""
    reply = yield from asked(send)
    if reply.status >= FIRST_ERROR:
        raise ProviderFailed(errors(reply.status, reply.body))
    return reply


def asked(send: Send) -> Generator[Step, Any, Reply]:
    """The reply, whichever it is."""
    reply = yield send
    assert isinstance(reply, Reply)
    return reply


def received() -> Generator[Step, Any, bytes]:
    """The next bytes of the client's body, b"" at its end."""
    chunk = yield Receive()
    assert isinstance(chunk, bytes)
    return chunk


def waited(seconds: float) -> Generator[Step, Any, float]:
    """The time afterwards, in seconds since 1970."""
    now = yield Wait(seconds)
    assert isinstance(now, float)
    return now


class Patience:
    """How long a client is kept waiting for what is polled for."""

    def __init__(self, wanted: Wanted, what: str, seconds: float = 2.0) -> None:
        self._over = wanted.now + MAX_WAITED
        self._what = what
        self._seconds = seconds

    def pause(self) -> Generator[Step, Any, None]:
        """Wait for the next poll. Raises ProviderFailed (504) once it has been long enough."""
        if (yield from waited(self._seconds)) >= self._over:
            text = f"{self._what} was not done within {MAX_WAITED:.0f} seconds"
            raise ProviderFailed(ProviderError(text, status=GATEWAY_TIMEOUT))


def parsed(reply: Reply) -> Mapping[str, object]:
    """The JSON object of a reply. Raises ProviderFailed (502) for anything else."""
    try:
        value = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise unusable("expected a JSON object")
    return value


def unusable(why: str) -> ProviderFailed:
    """For an answer of the provider's that makes no sense."""
    return ProviderFailed(ProviderError(f"the provider's answer is not usable: {why}", status=502))


def not_there(wanted: Wanted, *there: str) -> ProviderFailed:
    """For an operation that the provider has not; `there` are those that it has, such as
    `GET /files/{id}`."""
    path = "/".join([wanted.collection, *wanted.rest])
    text = f"{wanted.method} /{path}: {wanted.provider or 'the provider'} has no such operation"
    if there:
        text += f"; it has {', '.join(there)}"
    return ProviderFailed(ProviderError(text, status=404))


def segment(text: str, what: str) -> str:
    """`text` as one segment of a path, percent-encoded. Raises FormatError where it is none."""
    if text in ("", ".") or not text.isprintable() or _CLIMBS.search(text):
        raise FormatError(f"{what}: expected a name, got {text[:100]!r}")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise FormatError(f"{what}: expected a name in Unicode") from None
