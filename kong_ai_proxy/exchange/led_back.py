"""Answers in a native format that lead the client to another address: it has to be the gateway's,
which alone has the key.

Uploads of Gemini's answer with the URL for the file's bytes, in a header
(https://ai.google.dev/gemini-api/docs/files); message batches of Anthropic's with the URL of their
results (https://docs.anthropic.com/en/api/retrieving-message-batch-results).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kong_ai_proxy.exchange import privacy
from kong_ai_proxy.exchange.address import split_url
from kong_ai_proxy.exchange.answer import BROKE_OFF, no_answer
from kong_ai_proxy.exchange.errors import BAD_GATEWAY, Refused
from kong_ai_proxy.exchange.messages import (
    Action,
    Address,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Lost,
    ResponseHead,
)
from kong_ai_proxy.exchange.reading import Reading

MAX_WHOLE = 64 << 20
"""Bytes of an answer that is held to be changed."""

_UPLOAD_ID = frozenset({"upload_id"})
_UPLOAD_URLS = frozenset({"x-goog-upload-control-url", "x-goog-upload-url"})
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*")((?:[^"\\]|\\.)*)"')
_RESULTS_PATH = re.compile(rb"https?://[^/]+(?:/[^?#]*)?(/v1/messages/batches/[^/]+/results)")
# The one place for uploads: what else stands below /upload/ is an operation like all others.
_UPLOAD = re.compile(r"/upload/v1(?:beta|alpha)?/files/?\Z")
_BATCHES = re.compile(r"/messages/batches(?:/[^/]+(?:/cancel)?)?/?\Z")
_LENGTH = frozenset({"content-length", "content-digest", "content-md5", "digest", "repr-digest"})


def is_upload(llm_format: str, request: ClientRequest) -> bool:
    """Whether the body is a piece of a file, whatever its content type says."""
    if llm_format != "gemini" or _UPLOAD.search(request.path) is None:
        return False
    command = request.header("x-goog-upload-command")
    return command is not None and command.strip().lower() != "start"


def tells_results(llm_format: str, path: str) -> bool:
    """Whether the answer may have the URL of results in it."""
    return llm_format == "anthropic" and _BATCHES.search(path) is not None


def leads_back(llm_format: str, request: ClientRequest) -> bool:
    """Whether the answer may have to tell the gateway's own address."""
    return bool(secrets_in_answers(llm_format, request)) or tells_results(llm_format, request.path)


def secrets_in_answers(llm_format: str, request: ClientRequest) -> frozenset[str]:
    """Headers of the answer that are as good as a key: who has an upload's URL goes on with it."""
    is_start = llm_format == "gemini" and _UPLOAD.search(request.path) is not None
    return _UPLOAD_URLS if is_start else frozenset()


def secret_query(llm_format: str, request: ClientRequest) -> frozenset[str]:
    """What of a client's query is: it goes on with an upload."""
    return _UPLOAD_ID if is_upload(llm_format, request) else frozenset()


def own_address(request: ClientRequest, native_path: str) -> str:
    """The gateway's scheme and host, and what comes before the format's own path, as the client
    wrote them."""
    whole = request.path.rstrip("/")
    prefix = whole.removesuffix(native_path.rstrip("/"))
    return request.origin + (prefix if prefix != whole else "")


def with_own_upload(head: ResponseHead, asked: Address, own: str, native_path: str) -> ResponseHead:
    """The head with the gateway's address in place of the provider's. Raises Refused (502) for
    one of somebody else's."""
    if not any(name in _UPLOAD_URLS for name, _ in head.headers):
        return head
    headers = (
        (name, _own_upload(value, asked, own + native_path) if name in _UPLOAD_URLS else value)
        for name, value in head.headers
    )
    return head._replace(headers=tuple(headers))


def _own_upload(url: str, asked: Address, own: str) -> str:
    try:
        given = split_url(url)
    except Refused:
        raise _elsewhere() from None
    if (given.host, given.port) != (asked.host, asked.port) or "/upload/" not in given.path:
        raise _elsewhere()
    query = privacy.without(given.query, privacy.CREDENTIAL_QUERY)
    return f"{own}?{query}" if query else own


def _elsewhere() -> Refused:
    return Refused(BAD_GATEWAY, "the provider's answer leads to an address of somebody else's")


class LedBack:
    """An answer in which the URLs of results are the gateway's. See answer.Answer."""

    is_stream = False
    direct = None

    def __init__(
        self, head: ResponseHead, own: str, reading: Reading | None, added: Mapping[str, str]
    ) -> None:
        self.status = head.status
        self.failure: str | None = None
        self.reading = reading
        self._head = head
        self._own = own.encode()
        self._added = added
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False

    def commit(self) -> Iterator[Action]:
        """Nothing yet: the whole body may change."""
        return iter(())

    def feed(self, event: Data | End | Lost) -> Iterator[Action]:
        """What to do about it."""
        if self._over:
            return
        match event:
            case Data(chunk):
                self._pieces.append(chunk)
                self._size += len(chunk)
                if self._size > MAX_WHOLE:
                    self._over = True
                    text = f"the provider's answer is longer than {MAX_WHOLE} bytes"
                    yield Fail("error", text, Refused(BAD_GATEWAY, text))
            case End():
                self._over = True
                yield from self._whole(b"".join(self._pieces))
            case Lost(criterion, reason):
                self._over = True
                broke_off = Fail(criterion, reason, Refused(BAD_GATEWAY, BROKE_OFF))
                yield no_answer(event) if criterion == "timeout" else broke_off

    def _whole(self, body: bytes) -> Iterator[Action]:
        if self.reading:
            self.reading.feed(body)
            self.reading.end()
        try:
            changed = _RESULTS_URL.sub(self._led_back, body)
        except Refused as refused:
            yield Fail("invalid_header", refused.message, refused)
            return
        headers = [
            (name, value)
            for name, value in self._head.headers
            if not privacy.stays_behind(name) and name not in self._added and name not in _LENGTH
        ]
        headers.extend(self._added.items())
        yield Commit(ResponseHead(self._head.status, tuple(headers)), len(changed))
        if changed:
            yield Emit(changed)
        yield Finish()

    def _led_back(self, found: re.Match[bytes]) -> bytes:
        """The member with the gateway's address. Raises Refused for one that leads elsewhere."""
        place = _RESULTS_PATH.fullmatch(found[2].replace(b"\\/", b"/"))
        if place is None:
            raise _elsewhere()
        return found[1] + self._own + place[1] + b'"'
