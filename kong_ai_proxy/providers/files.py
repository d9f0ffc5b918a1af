"""What uploads and downloads of files have in common, whatever keeps them: the form of an upload,
taken apart while it arrives; the lines of a batch's files, converted while they pass; and ids.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import orjson

from kong_ai_proxy.formats.batches import BatchAnswer, BatchRequest
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import parsed
from kong_ai_proxy.formats.form import FormError, FormReader, Part
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import errors as openai_errors
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.providers.flow import (
    ProviderFailed,
    Step,
    Texts,
    Wanted,
    received,
    waited,
)

MAX_INPUT_LINE = 16 << 20
MAX_OUTPUT_LINE = 64 << 20
"""A line of output may hold the request beside the answer, and images."""
MAX_MEMBERS, MAX_TOOLS = 1024, 1024
"""Of one request of a batch, which is converted in one go. OpenAI takes 128 tools."""

MAX_REQUESTS = 50_000
"""https://platform.openai.com/docs/api-reference/batch/create: that many to a batch."""

SLICE = 16 << 10
"""Bytes of lines that are converted at once: 10 ms where they are short."""

_SMALL = 64 << 10  # bytes: what is longer has the room of a whole piece at once
_MAX_FIELDS = 100
_MAX_FIELD = 4 << 10
_MAX_NAME = 255
_BOM = b"\xef\xbb\xbf"

# ---- ids


def file_id(name: str) -> str:
    """The id that clients get for what the provider, or the bucket, has under `name`."""
    return "file-" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def file_name(told: str) -> str:
    """The name that an id was made of; the caller has to check it against what it makes itself.
    Raises ProviderFailed (404) for an id that was not made here."""
    encoded = told.removeprefix("file-")
    try:
        name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        raise no_file(told) from None
    if not name or file_id(name) != told:
        raise no_file(told)
    return name


def leads_to(find: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether an id leads anywhere; `find` raises ProviderFailed for one that does not."""

    def leads(told: str) -> bool:
        try:
            find(told)
        except ProviderFailed:
            return False
        return True

    return leads


FILE_OPERATIONS = (
    "POST /files",
    "GET /files",
    "GET /files/{id}",
    "GET /files/{id}/content",
    "DELETE /files/{id}",
)
BATCH_OPERATIONS = (
    "POST /batches",
    "GET /batches",
    "GET /batches/{id}",
    "POST /batches/{id}/cancel",
)
"""The operations of OpenAI's, for not_there."""


def no_file(told: str) -> ProviderFailed:
    """For an id that leads nowhere."""
    return _nothing("File", told)


def no_batch(told: str) -> ProviderFailed:
    """The same for a batch's."""
    return _nothing("Batch", told)


def _nothing(kind: str, told: str) -> ProviderFailed:
    text = f"No such {kind} object: {told[:200]}"
    return ProviderFailed(ProviderError(text, "invalid_request_error", 404, param="id"))


# ---- lines


class Lines(Protocol):
    """What becomes of the lines of one file, in their order."""

    def line(self, number: int, line: bytes) -> bytes:
        """What takes the place of a line that is not blank, with its end; b"" for nothing.
        Numbers start at 1. Raises FormatError or ProviderFailed."""

    def too_long(self, number: int) -> bytes:
        """The same for a line that is longer than the filter may hold."""

    def end(self) -> bytes:
        """What follows the last line. Raises as `line` does."""


class LineFilter:
    """Changes a file line by line while it passes, however it is cut. Is a `flow.Filter`.

    Holds one unfinished line, at most `max_line` bytes of it.
    """

    def __init__(self, lines: Lines, max_line: int) -> None:
        self._lines = lines
        self._max = max_line
        self._number = 1
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        """What the lines that `chunk` completes become. Raises what `Lines` raise."""
        *ended, rest = chunk.split(b"\n")
        out = []
        for piece in ended:
            self._hold(piece)
            out.append(self._finish())
        self._hold(rest)
        return b"".join(out)

    def end(self) -> bytes:
        """What the rest becomes, the last line having an end or not."""
        return self._finish() + self._lines.end()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            self._held.clear()
        elif piece:
            self._held.append(piece)

    def _finish(self) -> bytes:
        line, size, number = b"".join(self._held), self._size, self._number
        self._held, self._size = [], 0
        self._number += 1
        if size > self._max:
            return self._lines.too_long(number)
        if number == 1:
            line = line.removeprefix(_BOM)
        return self._lines.line(number, line) if line.strip() else b""


class BatchInput:
    """Turns the requests of a batch, in OpenAI's format, into the lines of a provider's input."""

    def __init__(
        self,
        texts: Texts,
        urls: Mapping[str, str],
        render: Callable[[BatchRequest, dict[str, object]], bytes],
        codec: ProviderCodec | None = None,
    ) -> None:
        """`urls`: the route types of the URLs that the provider has batches for. `render` makes a
        line, its end included, of a request and its body in the provider's format."""
        self._texts = texts
        self._urls = urls
        self._render = render
        self._codec = codec
        self._ids: set[bytes] = set()  # digests, which are shorter
        self.url = ""
        """Of all requests; "" before the first."""
        self.model = ""
        """The client's name for it, of all requests; "" where they tell none."""

    def line(self, number: int, line: bytes) -> bytes:
        """See Lines. Raises FormatError that names the line."""
        try:
            request = openai_batches.parse_request(line)
            self._check(request)
            body = self._texts.request(self._urls[request.url], request.body, self._codec)
            return self._render(request, body)
        except FormatError as wrong:
            raise FormatError(f"line {number}: {wrong}") from None
        except (orjson.JSONEncodeError, RecursionError):
            raise FormatError(f"line {number}: expected no JSON nested so deeply") from None

    def too_long(self, number: int) -> bytes:
        """See Lines."""
        raise FormatError(f"line {number}: expected at most {MAX_INPUT_LINE} bytes")

    def end(self) -> bytes:
        """See Lines."""
        if not self._ids:
            raise FormatError("file: expected at least one request")
        return b""

    def _check(self, request: BatchRequest) -> None:
        digest = hashlib.blake2b(request.custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            raise FormatError(f"custom_id: {request.custom_id!r} occurs twice")
        if len(self._ids) >= MAX_REQUESTS:
            raise FormatError(f"expected at most {MAX_REQUESTS} requests")
        if request.url not in self._urls:
            raise FormatError(f"url: expected {' or '.join(self._urls)}, got {request.url[:100]!r}")
        model = request.body.get("model") or ""
        if not isinstance(model, str):
            raise FormatError("body.model: expected a string")
        tools = request.body.get("tools")
        if len(request.body) > MAX_MEMBERS or (isinstance(tools, list) and len(tools) > MAX_TOOLS):
            raise FormatError(f"body: expected at most {MAX_MEMBERS} members and {MAX_TOOLS} tools")
        if not self._ids:
            self.url, self.model = request.url, model
        if (request.url, model) != (self.url, self.model):
            raise FormatError(
                f"expected the url {self.url!r} and the model {self.model!r} of the lines before"
            )
        self._ids.add(digest)


def batch_model(wanted: Wanted, told: str, *spellings: str) -> str:
    """The model of a new batch: the request's, the configured one, or `told`, which the lines of
    its input ask for; "" where nobody names one. `spellings`: how those may have written it.
    Raises FormatError where the configured one is none that the lines may have."""
    if told and wanted.model and not wanted.body.get("model"):
        _check_lines_model(wanted, (told, *spellings))
    return wanted.model or told


def _check_lines_model(wanted: Wanted, spellings: tuple[str, ...]) -> None:
    assert wanted.texts is not None
    for name in spellings:
        try:
            wanted.texts.real_model(name)
        except FormatError as error:
            wrong = error
        else:
            return
    raise FormatError(f"input_file_id: its requests are for {spellings[0]!r}: {wrong}")


class BatchOutput:
    """Turns the lines of a provider's output into those of OpenAI's. What cannot be converted
    becomes a line with an error."""

    def __init__(
        self,
        texts: Texts,
        route_type: str,
        parse: Callable[[object], BatchAnswer],
        codec: ProviderCodec | None = None,
    ) -> None:
        """`parse` reads a line, parsed JSON; what it raises is FormatError."""
        self._texts = texts
        self._route_type = route_type
        self._parse = parse
        self._codec = codec

    def line(self, number: int, line: bytes) -> bytes:
        """See Lines."""
        answer = BatchAnswer(None)
        name = f"batch_req_{number}"
        try:
            answer = self._parse(parsed(line))
            name = f"batch_req_{answer.id}" if answer.id else name
            if answer.error is not None:
                return _failed(name, answer.custom_id, answer.error)
            own = hashlib.blake2b(line, digest_size=12).hexdigest()  # the same at each download
            body = self._texts.answer(self._route_type, answer.body, self._codec, name=own)
            return openai_batches.render_answer(name, answer.custom_id, 200, body)
        except FormatError as wrong:
            return _unreadable(name, answer.custom_id, str(wrong))
        except (orjson.JSONEncodeError, RecursionError):
            return _unreadable(name, answer.custom_id, "it is nested too deeply")

    def too_long(self, number: int) -> bytes:
        """See Lines."""
        return _unreadable(f"batch_req_{number}", None, f"longer than {MAX_OUTPUT_LINE} bytes")

    def end(self) -> bytes:
        """See Lines."""
        return b""


def _failed(name: str, custom_id: str | None, error: ProviderError) -> bytes:
    """An error with a status is an answer, any other one means that there was none."""
    if not error.status:
        return openai_batches.render_failure(name, custom_id, error)
    body = openai_errors.render_error(error)
    return openai_batches.render_answer(name, custom_id, error.status, body)


def _unreadable(name: str, custom_id: str | None, why: str) -> bytes:
    error = ProviderError(f"the provider's answer is not usable: {why}", "invalid_answer")
    return openai_batches.render_failure(name, custom_id, error)


# ---- uploads


class _Pieces:
    """Bytes on their way into pieces of one size. A piece has its room from early on and is not
    copied when it is taken, so that there never are two of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._full: deque[bytes] = deque()
        self._growing = io.BytesIO()
        self._has_room = False

    def add(self, content: bytes) -> None:
        """What comes next."""
        left = memoryview(content)
        while left:
            if not self._has_room and self._growing.tell() + len(left) > _SMALL:
                self._make_room()
            taken = left[: self._size - self._growing.tell()]
            self._growing.write(taken)
            left = left[len(taken) :]
            if self._growing.tell() == self._size:
                self._full.append(self._grown())

    @property
    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._full and not self._growing.tell()

    @property
    def has_more(self) -> bool:
        """Whether there is more than the piece that is taken next."""
        return bool(self._full) and (len(self._full) > 1 or self._growing.tell() > 0)

    def take(self) -> bytes:
        """The next one; of less than a piece what there is."""
        return self._full.popleft() if self._full else self._grown()

    def _make_room(self) -> None:
        roomy = io.BytesIO(bytes(self._size))
        roomy.write(self._growing.getbuffer())
        self._growing, self._has_room = roomy, True

    def _grown(self) -> bytes:
        grown, self._growing, self._has_room = self._growing, io.BytesIO(), False
        grown.truncate()
        return grown.getvalue()  # which copies nothing: nobody else has it


class Upload:
    """A client's upload: a form with the fields `purpose`, `file` and `expires_after`, in any
    order, the file of any size.

        upload = Upload(wanted, 5 << 20, lines)
        piece = yield from upload.piece()
        while not upload.is_over: ...  # send the piece, take the next one

    `lines` makes what converts a batch's input, None where the provider's batches take none. It is
    applied to files of the purpose batch, and to those whose purpose is told after the file when
    their first line is a batch's. Holds a piece, a chunk and a line.
    """

    def __init__(
        self, wanted: Wanted, size: int, lines: Callable[[], BatchInput] | None = None
    ) -> None:
        """`size` is that of a piece, in bytes. Raises FormatError unless the body is a form."""
        try:
            self._reader = FormReader(wanted.content_type)
        except FormError as wrong:
            raise FormatError(str(wrong)) from None
        self._make = lines
        self._ready = _Pieces(size)
        self._field: tuple[str, bytearray] | None = None  # of the plain field under way
        self._fields: dict[str, str] = {}
        self._content: _Content | None = None
        self._ended = False
        self.filename = ""
        self.media_type = ""
        """As the client told it; "" where it did not."""
        self.received = 0
        """Bytes of the file so far, as the client sends it."""
        self.taken = 0
        """Bytes that have been given out, of the converted file where it is converted."""
        self.is_over = False
        """Whether the piece that was taken was the last."""
        self.batch: BatchInput | None = None
        """What converts it, once that is known: with the first piece."""

    @property
    def purpose(self) -> str:
        """ "" where it has not been told yet; it has when the last piece has been taken."""
        return self._fields.get("purpose", "batch" if self.batch else "")

    @property
    def expires_after(self) -> int | None:
        """Seconds. Known with the last piece."""
        return openai_files.parse_expiry(self._fields)

    def piece(self) -> Generator[Step, Any, bytes]:
        """The next bytes: as many as a piece has, or the rest. Raises FormatError for a form that
        is no upload or that is cut short."""
        while not (self._ready.has_more or self._ended):
            yield from self._more()
        taken = self._ready.take()
        self.taken += len(taken)
        self.is_over = self._ended and self._ready.is_empty
        return taken

    def _more(self) -> Generator[Step, Any, None]:
        chunk = yield from received()
        try:
            found = self._reader.feed(chunk) if chunk else []
            if not chunk:
                self._reader.end()
        except FormError as wrong:
            raise FormatError(str(wrong)) from None
        for each in found:
            if isinstance(each, Part):
                self._end_field()
                self._enter(each)
            elif self._field is not None:
                self._add(each)
            else:
                yield from self._put(each)
        if not chunk:
            self._end_field()
            self._end()

    def _enter(self, part: Part) -> None:
        if part.name != "file":
            self._field = (part.name, bytearray())
            return
        if self._content is not None:
            raise FormatError("file: occurs twice, expected one file")
        if not part.filename:
            raise FormatError("file: expected a file, with a file name")
        if len(part.filename.encode()) > _MAX_NAME or not part.filename.isprintable():
            raise FormatError(f"file: expected a file name of at most {_MAX_NAME} bytes")
        self.filename, self.media_type = part.filename, part.media_type
        self._content = _Content(self._make, self._fields.get("purpose"))

    def _add(self, content: bytes) -> None:
        assert self._field is not None
        name, value = self._field
        value += content
        if len(value) > _MAX_FIELD:
            raise FormatError(f"{name[:100]}: expected at most {_MAX_FIELD} bytes")

    def _put(self, content: bytes) -> Generator[Step, Any, None]:
        """Content of the file. Others have a turn while many lines are converted."""
        assert self._content is not None
        self.received += len(content)
        size = SLICE if self._content.batch is not None else len(content)
        for start in range(0, len(content), size):
            if start:
                yield from waited(0.0)
            self._ready.add(self._content.feed(content[start : start + size]))
        self.batch = self._content.batch

    def _end_field(self) -> None:
        if self._field is None:
            return
        (name, value), self._field = self._field, None
        if name in self._fields or len(self._fields) >= _MAX_FIELDS:
            raise FormatError(f"{name[:100]}: occurs twice, or is one field too many")
        try:
            self._fields[name] = value.decode()
        except UnicodeDecodeError:
            raise FormatError(f"{name[:100]}: expected UTF-8") from None
        if name == "purpose":  # before a large file has gone up
            openai_files.parse_purpose(self._fields)

    def _end(self) -> None:
        """The form is complete."""
        purpose = openai_files.parse_purpose(self._fields)
        openai_files.parse_expiry(self._fields)
        if self._content is None:
            raise FormatError("file: expected a file; it is missing")
        if not self.received:
            raise FormatError("file: expected content; it is empty")
        self._ready.add(self._content.end(purpose))
        self.batch = self._content.batch
        self._ended = True


class _Content:
    """A file's content, converted where it is a batch's input."""

    def __init__(self, make: Callable[[], BatchInput] | None, purpose: str | None) -> None:
        """`purpose` is None where it has not been told."""
        self.batch: BatchInput | None = None
        self._make = make
        self._filter: LineFilter | None = None
        self._held: bytearray | None = None  # until it is known what it is
        self._looked = 0  # how much of that has no line end
        if make is not None and purpose is None:
            self._held = bytearray()
        elif purpose == "batch":
            self._convert()

    def feed(self, chunk: bytes) -> bytes:
        if self._held is None:
            return self._passed(chunk)
        self._held += chunk
        if len(self._held) <= MAX_INPUT_LINE and self._held.find(b"\n", self._looked) < 0:
            self._looked = len(self._held)
            return b""
        return self._decide()

    def end(self, purpose: str) -> bytes:
        """`purpose` is what was told in the end."""
        rest = b"" if self._held is None else self._decide()
        if self._make is not None and (purpose == "batch") != (self.batch is not None):
            if purpose == "batch":
                raise FormatError(f"line 1: expected {openai_batches.LINE}")
            raise FormatError(
                "purpose: expected it before the file, whose first line is that of a batch"
            )
        return rest + (self._filter.end() if self._filter else b"")

    def _decide(self) -> bytes:
        held, self._held = bytes(self._held or b""), None
        if openai_batches.is_request(held.partition(b"\n")[0].removeprefix(_BOM)):
            self._convert()
        return self._passed(held)

    def _convert(self) -> None:
        if self._make is not None:
            self.batch = self._make()
            self._filter = LineFilter(self.batch, MAX_INPUT_LINE)

    def _passed(self, chunk: bytes) -> bytes:
        return self._filter.feed(chunk) if self._filter else chunk
