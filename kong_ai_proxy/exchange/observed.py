"""An answer that stays as it is, in a format that is not OpenAI's, read while it passes."""

from __future__ import annotations

from typing import cast

import orjson

from kong_ai_proxy.exchange.errors import FIRST_ERROR
from kong_ai_proxy.exchange.learned import Learned
from kong_ai_proxy.exchange.messages import ResponseHead
from kong_ai_proxy.formats.codec import ChatProvider, EmbeddingsProvider, StreamReader
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage

MAX_READ = 16 << 20
"""Bytes of an answer in one piece that are kept to be read at its end."""


class _Observed:
    """See reading.Reading."""

    def __init__(self, learned: Learned) -> None:
        self.problem: str | None = None
        self._learned = learned

    @property
    def has_content(self) -> bool:
        return self._learned.has_content

    @property
    def usage(self) -> Usage | None:
        return self._learned.usage

    @property
    def model(self) -> str | None:
        return self._learned.model

    @property
    def error(self) -> str | None:
        return self._learned.error

    @property
    def failed(self) -> ProviderError | None:
        return self._learned.failed

    def payload(self) -> str | None:
        """The answer for the log, in OpenAI's format."""
        return self._learned.payload()


class ObservedStream(_Observed):
    """A stream."""

    def __init__(self, reader: StreamReader, learned: Learned) -> None:
        super().__init__(learned)
        self._reader = reader

    def feed(self, chunk: bytes) -> bytes:
        """`chunk`."""
        deltas = self._reader.feed(chunk)
        if deltas:
            self._learned.note(deltas)
        return chunk

    def end(self) -> bytes:
        """Nothing."""
        self._learned.note(self._reader.end())
        return b""


class ObservedWhole(_Observed):
    """An answer in one piece."""

    def __init__(
        self, provider: ChatProvider | EmbeddingsProvider, learned: Learned, status: int
    ) -> None:
        super().__init__(learned)
        self._status = status
        self._provider = provider
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        """`chunk`."""
        self._size += len(chunk)
        if self._size > MAX_READ:
            self.problem = f"the answer is longer than {MAX_READ} bytes"
            self._chunks.clear()
        elif chunk:
            self._chunks.append(chunk)
        return chunk

    def end(self) -> bytes:
        """Nothing."""
        body = b"".join(self._chunks)
        self._learned.keep(body)
        if self._status >= FIRST_ERROR:
            self._learned.note_error(self._provider.parse_error(self._status, body).message)
            return b""
        try:
            self._learn(orjson.loads(body))
        except (orjson.JSONDecodeError, FormatError) as error:
            self.problem = self.problem or f"not an answer of this format: {error}"
        return b""

    def _learn(self, value: object) -> None:
        answer = self._provider.parse_answer(value)
        if isinstance(answer, list):
            self._learned.note(answer)
        else:
            self._learned.note_usage(answer.usage, answer.model)


def observed(
    codec: ChatProvider | EmbeddingsProvider, head: ResponseHead, learned: Learned, *, stream: bool
) -> ObservedStream | ObservedWhole:
    """The reading of an answer with this head; `stream`: a stream was asked for."""
    media_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
    types: frozenset[str] = getattr(codec, "stream_types", frozenset())
    if head.status < FIRST_ERROR and stream and media_type in types:
        return ObservedStream(cast(ChatProvider, codec).reader(), learned)
    return ObservedWhole(codec, learned, head.status)
