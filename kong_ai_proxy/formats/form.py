"""Multipart forms, piece by piece: FormFilter lets one stream through, in which a few small fields
are read or changed and the rest, files of any size, goes on byte for byte; FormReader takes one
apart.

RFC 7578 (multipart/form-data) and RFC 2046 section 5.1.1 (multipart). Where servers are known to
read the same bytes differently, the form is refused: a rule about a field holds only when the
provider sees the field that was looked at here. Forms of browsers and of the usual HTTP libraries
are not affected.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from typing_extensions import override

MAX_PREAMBLE = 8 << 10
MAX_HEADERS = 16 << 10
MAX_VALUE = 4 << 10
MAX_PARTS = 1000

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_WORD})=(?:"([^"]*)"|({_WORD}))')
_TYPE = re.compile(r"[ \t]*multipart/form-data(?=[ \t]*(?:;|$))", re.IGNORECASE)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_HEADER = re.compile(rf"({_WORD}):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_DISPOSITION = re.compile(r"form-data(?=[ \t]*(?:;|$))", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TEXT_CHARSETS = frozenset({"utf-8", "us-ascii"})
_PLAIN_ENCODINGS = frozenset({"7bit", "8bit", "binary"})

_BAD_HEADERS = "expected headers 'name: value' in each part, CRLF after each and an empty line"

OnField = Callable[[str, str], bytes | None]
Missing = Callable[[frozenset[str]], Mapping[str, str]]


class FormError(ValueError):
    """The form cannot be read, or not by everybody alike. The text is for the client (400)."""


class _Scanner(ABC):
    """Finds the parts of one form.

    Holds the headers of one part, or as much of a chunk's end as may be the beginning of a
    boundary: MAX_HEADERS and a chunk at most. What a part consists of goes to `_enter` and `_put`,
    all that stands between the parts to `_pass`.
    """

    def __init__(self, content_type: str) -> None:
        """Raises FormError unless `content_type` is multipart/form-data with a usable boundary."""
        dashes = b"--" + _boundary(content_type)
        self._dashes = dashes
        self._delimiter = b"\r\n" + dashes
        self._bare = (b"\n" + dashes, b"\r" + dashes)
        self._parts = 0
        self._step: Callable[[Any, bytes, int], int] = _Scanner._preamble
        # The first boundary may stand at the very start: as if a line had ended there.
        self._held = b"\r\n"
        self._at_start = False  # at the line end between the headers and the content
        self._known = 0  # how much of the headers that are held has been looked at
        self._last = b""  # what came behind the closing boundary

    def _scan(self, chunk: bytes) -> None:
        data = self._held + chunk if self._held else chunk
        self._held = b""
        at = 0
        try:
            while at < len(data):
                at = self._step(self, data, at)
        except BaseException:
            self._step = _Scanner._refuse
            raise

    def _check_end(self) -> None:
        ended = self._step in (_Scanner._after_close, _Scanner._epilogue) and not self._held
        if not ended:
            raise FormError("the form is cut short: expected the closing boundary before the end")

    @abstractmethod
    def _enter(self, head: bytes) -> None:
        """A part begins, whose headers, a line end before each, are `head`. To set `_step` where
        its content is not for `_put`."""

    @abstractmethod
    def _put(self, content: bytes) -> None:
        """Content of the part, the line end between its headers and it included."""

    @abstractmethod
    def _pass(self, data: bytes) -> None:
        """What stands between parts, before or after them."""

    @abstractmethod
    def _close(self) -> None:
        """The closing boundary follows."""

    def _hold(self, data: bytes, at: int) -> int:
        """Wait for more, keeping the data from `at` on."""
        self._held = data[at:]
        return len(data)

    # Steps. Each is called with data and an offset inside it, and returns the next offset.

    def _preamble(self, data: bytes, at: int) -> int:
        found = self._find(data, at)
        dashes = data.find(self._dashes, at)
        if dashes >= 0 and dashes != found + 2:
            raise FormError("the boundary stands inside a line before the first part")
        if (found if found >= 0 else len(data) - self._unsure(data, at)) > MAX_PREAMBLE:
            raise FormError(f"no part begins in the first {MAX_PREAMBLE} bytes of the form")
        if found < 0:
            return self._hold(data, at)
        self._pass(data[at:found])
        self._step = _Scanner._boundary_line
        return found

    def _boundary_line(self, data: bytes, at: int) -> int:
        end = at + len(self._delimiter)
        after = data[end : end + 2]
        if after == b"\r\n":
            self._pass(data[at:end])
            self._step = _Scanner._headers
            return end
        if after == b"--":
            self._close()
            self._pass(data[at : end + 2])
            self._step = _Scanner._after_close
            return end + 2
        if after in (b"", b"\r", b"-"):
            return self._hold(data, at)
        raise FormError("expected CRLF or -- directly after the boundary")

    def _headers(self, data: bytes, at: int) -> int:
        known, self._known = at + self._known, 0
        end = data.find(b"\r\n\r\n", max(at, known - 3))
        if (end if end >= 0 else len(data) - 3) - at > MAX_HEADERS:
            raise FormError(f"the headers of a part are longer than {MAX_HEADERS} bytes")
        if end < 0:
            if _BARE_LF.search(data, known):
                raise FormError(_BAD_HEADERS)
            self._known = len(data) - at
            return self._hold(data, at)
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise FormError(f"more than {MAX_PARTS} parts")
        # The content is taken to begin with the last line end, so that a boundary right behind
        # the headers shows: some servers take it for one and others for content.
        self._at_start = True
        self._step = _Scanner._content
        self._enter(data[at : end + 2])
        return end + 2

    def _content(self, data: bytes, at: int) -> int:
        found = self._find(data, at)
        if found < 0:
            end = len(data) - self._unsure(data, at)
            if end > at:
                self._put(data[at:end])
                self._at_start = False
            return self._hold(data, end)
        self._put(data[at:found])
        self._step = _Scanner._boundary_line
        return found

    def _after_close(self, data: bytes, at: int) -> int:
        line_end = data[at : at + 2]
        if line_end == b"\r":
            return self._hold(data, at)
        if line_end != b"\r\n":
            raise FormError("expected CRLF or the end directly after the closing boundary")
        self._step = _Scanner._epilogue
        return at

    def _epilogue(self, data: bytes, at: int) -> int:
        seen = self._last + data[at:]
        if self._dashes in seen:
            raise FormError("the boundary occurs again after the closing boundary")
        self._last = seen[-len(self._dashes) :]
        self._pass(data[at:])
        return len(data)

    def _refuse(self, _data: bytes, _at: int) -> int:
        raise FormError("the form was refused before")

    # What steps have in common.

    def _find(self, data: bytes, at: int) -> int:
        """Offset of the next delimiter, or -1."""
        bare_lf, bare_cr = self._bare
        found = data.find(bare_lf, at)
        if data.find(bare_cr, at, found if found >= 0 else len(data)) >= 0:
            raise FormError("expected CRLF before the boundary, got CR")
        if found < 0:
            return -1
        if found == at or data[found - 1 : found] != b"\r":
            raise FormError("expected CRLF before the boundary, got LF")
        if self._at_start and found - 1 == at:
            raise FormError("expected an empty line and CRLF between a part's headers and boundary")
        return found - 1

    def _unsure(self, data: bytes, at: int) -> int:
        """How many of the last bytes may be the beginning of a delimiter."""
        window = max(at, len(data) - len(self._delimiter))
        start = max(data.rfind(b"\r", window), data.rfind(b"\n", window))
        if start < 0:
            return 0
        if start > at and data[start - 1 : start + 1] == b"\r\n":
            start -= 1
        tail = data[start:]
        possible = any(sign.startswith(tail) for sign in (self._delimiter, *self._bare))
        return len(tail) if possible else 0


class FormFilter(_Scanner):
    """Filters one form.

    Holds a watched value at most, beside what the scanner does. A chunk that lies inside a file
    comes back as the same object. After an error nothing more is let through.
    """

    def __init__(
        self, content_type: str, watch: frozenset[str], on_field: OnField, missing: Missing
    ) -> None:
        """Raises FormError unless `content_type` is multipart/form-data with a usable boundary.

        `on_field(name, value)` is called for each part named in `watch`: None keeps it as it is,
        bytes take the place of its content; what it raises comes out of `feed`. At the end,
        `missing(names of watch that were there)` gives fields to add, values by name.
        """
        super().__init__(content_type)
        self._watch = watch
        self._watched = {_loosely(name): name for name in watch}
        self._on_field = on_field
        self._missing = missing
        self._seen: set[str] = set()
        self._invented = 2  # bytes of what comes out that were never received
        self._out: list[bytes] = []
        self._name = ""  # of the watched part under way
        self._head = b""  # its headers

    def feed(self, chunk: bytes) -> bytes:
        """What goes on. Raises FormError."""
        self._scan(chunk)
        return self._taken()

    def end(self) -> bytes:
        """The body has ended. Raises FormError when the form has not."""
        self._check_end()
        return b""

    def _taken(self) -> bytes:
        out = self._out
        if not out:
            return b""
        self._out = []
        whole = out[0] if len(out) == 1 else b"".join(out)
        if self._invented and whole:
            whole, self._invented = whole[self._invented :], 0
        return whole

    @override
    def _pass(self, data: bytes) -> None:
        self._out.append(data)

    @override
    def _put(self, content: bytes) -> None:
        self._out.append(content)

    @override
    def _close(self) -> None:
        self._add_missing()

    @override
    def _enter(self, head: bytes) -> None:
        part = _Part(head)
        name = self._watched.get(_loosely(part.name))
        if name is None:
            self._out.append(head)
            return
        if part.name != name:
            raise FormError(f"unknown field {part.name!r}, did you mean {name!r}?")
        if name in self._seen:
            raise FormError(f"the field {name!r} occurs twice")
        part.check_text()
        self._seen.add(name)
        self._name, self._head = name, head
        self._step = FormFilter._value

    def _value(self, data: bytes, at: int) -> int:
        found = self._find(data, at)
        unsure = self._unsure(data, at) if found < 0 else 0
        start = at + 2
        if (found if found >= 0 else len(data) - unsure) - start > MAX_VALUE:
            raise FormError(f"the field {self._name!r} is longer than {MAX_VALUE} bytes")
        if found < 0:
            return self._hold(data, at)
        self._give(data[start:found])
        self._step = _Scanner._boundary_line
        return found

    def _give(self, value: bytes) -> None:
        """Send the watched part on, with its value or another."""
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise FormError(f"the field {self._name!r} is not UTF-8") from None
        content = self._on_field(self._name, text)
        if content is None:
            self._out += (self._head, b"\r\n", value)
        else:
            self._out += (_without_length(self._head), b"\r\n", self._checked(content))
        self._head = b""

    def _add_missing(self) -> None:
        for name, value in self._missing(frozenset(self._seen)).items():
            head = f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            self._out += (self._delimiter, head.encode(), self._checked(value.encode()))

    def _checked(self, content: bytes) -> bytes:
        if self._dashes in content:
            raise FormError("choose another boundary: it occurs in the value of a field")
        return content


class Part(NamedTuple):
    """A part of a form: all of it, or its head where it is read piece by piece."""

    name: str
    filename: str | None = None
    """None: a plain field."""
    media_type: str = ""
    """Without parameters, in lower case; "" where the part does not say it."""
    content: bytes = b""


class FormReader(_Scanner):
    """Takes one form apart, however it is cut. A part in a transfer encoding (RFC 7578 section 4.7
    has done away with them) and a text in another charset than UTF-8 are refused."""

    def __init__(self, content_type: str) -> None:
        """Raises FormError unless `content_type` is multipart/form-data with a usable boundary."""
        super().__init__(content_type)
        self._found: list[Part | bytes] = []
        self._to_skip = 0

    def feed(self, chunk: bytes) -> list[Part | bytes]:
        """What `chunk` completes: the head of each part, and after it its content in pieces.
        Raises FormError."""
        self._scan(chunk)
        found, self._found = self._found, []
        return found

    def end(self) -> None:
        """The body has ended. Raises FormError when the form has not."""
        self._check_end()

    @override
    def _enter(self, head: bytes) -> None:
        part = _Part(head)
        part.check_coding()
        self._found.append(Part(part.name, part.filename, part.media_type))
        self._to_skip = 2  # the line end between the headers and the content

    @override
    def _put(self, content: bytes) -> None:
        if self._to_skip:
            skipped = content[: self._to_skip]
            content, self._to_skip = content[len(skipped) :], self._to_skip - len(skipped)
        if content:
            self._found.append(content)

    @override
    def _pass(self, data: bytes) -> None:
        """Nobody wants to know."""

    @override
    def _close(self) -> None:
        """Nor that."""


def parts_of(content_type: str, body: bytes) -> tuple[Part, ...]:
    """The parts of a whole form, in their order. Raises FormError."""
    reader = FormReader(content_type)
    heads: list[Part] = []
    contents: list[list[bytes]] = []
    for found in reader.feed(body):
        if isinstance(found, Part):
            heads.append(found)
            contents.append([])
        else:
            contents[-1].append(found)
    reader.end()
    return tuple(
        head._replace(content=b"".join(pieces))
        for head, pieces in zip(heads, contents, strict=True)
    )


class _Part:
    """The headers of one part. Raises FormError for what is not plain."""

    def __init__(self, head: bytes) -> None:
        self._headers = _headers(head)
        disposition = self._headers.get("content-disposition", "")
        kind = _DISPOSITION.match(disposition)
        if not kind:
            raise FormError("expected Content-Disposition: form-data in each part")
        parameters = _parameters(disposition, kind.end(), "Content-Disposition")
        extended = [name for name in parameters if name.startswith("name*")]
        if extended or "name" not in parameters:
            raise FormError('expected name="..." in each Content-Disposition, and no name*')
        self.name = _utf8(parameters["name"])
        self._is_file = any(name.startswith("filename") for name in parameters)
        filename = parameters.get("filename", "") if self._is_file else None
        self.filename = None if filename is None else _utf8(filename)
        self.media_type = self._headers.get("content-type", "").partition(";")[0].strip().lower()

    def check_text(self) -> None:
        """Raise FormError unless everybody reads the content as the same text."""
        if self._is_file:
            raise FormError(f"the field {self.name!r} has a file name, expected a plain value")
        self.check_coding()

    def check_coding(self) -> None:
        """Raise FormError unless the content is what it is, and in UTF-8 where it is a text."""
        encoding = self._headers.get("content-transfer-encoding", "binary").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise FormError(f"the field {self.name!r} has a transfer encoding, expected none")
        if self._is_file:
            return
        media_type = self._headers.get("content-type", "")
        start = media_type.find(";")
        parameters = _parameters(media_type, start, "Content-Type") if start >= 0 else {}
        if parameters.get("charset", "utf-8").lower() not in _TEXT_CHARSETS:
            raise FormError(f"the field {self.name!r} has another charset, expected utf-8")


def _boundary(content_type: str) -> bytes:
    kind = _TYPE.match(content_type)
    if not kind:
        raise FormError("content-type: expected multipart/form-data")
    boundary = _parameters(content_type, kind.end(), "content-type").get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise FormError("content-type: expected a boundary of 1 to 70 characters (RFC 2046)")
    return boundary.encode()


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-1]:
        header = _HEADER.fullmatch(line)
        if not header:
            raise FormError(_BAD_HEADERS)
        name = header[1].lower()
        if name in headers:
            raise FormError(f"the header {name} occurs twice in a part")
        headers[name] = header[2]
    return headers


def _parameters(text: str, at: int, header: str) -> dict[str, str]:
    """The parameters of a header from `at` on, by name in lower case."""
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(text, at):
        name, value = match[1].lower(), match[2] if match[2] is not None else match[3]
        if value.endswith("\\"):
            raise FormError(f'{header}: expected %22 instead of \\" in {name}')
        if name in parameters:
            raise FormError(f"{header}: {name} occurs twice")
        parameters[name] = value
        at = match.end()
    if text[at:].strip(" \t") not in ("", ";"):
        raise FormError(f'{header}: expected parameters name="value", each after a semicolon')
    return parameters


def _utf8(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise FormError("Content-Disposition: expected a name in UTF-8") from None


def _loosely(name: str) -> str:
    """What the most lenient server may take a name for."""
    plain = unquote(name).replace("\\", "").strip(" \t'\"").casefold()
    return re.split(r"[\[.\0]", plain, maxsplit=1)[0].strip()


def _without_length(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"content-length:"))
