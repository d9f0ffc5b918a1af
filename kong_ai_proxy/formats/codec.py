"""What a wire format can do: the interface that the exchange works with.

A codec is one object without state, made once, such as `anthropic.MESSAGES`. It has a client's
half, a provider's half, or both. Where client and provider have the same codec, nothing is
converted; otherwise a request is parsed by the client's and rendered by the provider's, an answer
read by the provider's and written by the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import ProviderError

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Context(NamedTuple):
    """What writing an answer needs to know beside its pieces."""

    model: str = ""
    """The model that was asked, for providers that do not name it in their answers."""
    id: str = ""
    """Random, 24 letters and digits: what ids are made of where the provider told none."""
    now: int = 0
    """Seconds since 1970, for `created` where the provider told none."""
    wants_usage: bool = False
    """Whether a stream has to end with its usage, for clients that ask for it."""
    thought_tags: bool = False
    """Whether thoughts stand in the text as <thought>...</thought>, as OpenAI clients of Gemini
    know them, and not in a member of their own."""
    prefix: str = ""
    """A text completion that echoes: its prompt."""
    request: Mapping[str, object] = _NOTHING
    """What the client sent, for formats whose answers repeat some of it."""


class StreamReader(Protocol):
    """Reads one stream, however it is cut. Never raises: what cannot be read is a Failed, after
    which nothing more comes. Bounds what it holds (one event of 1 MiB, of media 32 MiB)."""

    def feed(self, chunk: bytes) -> list[Delta]:
        """The pieces that `chunk` completes."""

    def end(self) -> list[Delta]:
        """What the end of the body leaves. Failed where the answer is not complete."""


class StreamWriter(Protocol):
    """Writes one stream."""

    def feed(self, deltas: list[Delta]) -> bytes:
        """What the client gets of these; b"" for nothing yet. A Failed becomes an error in the
        client's format, without anything that looks like a good end."""

    def end(self) -> bytes:
        """The rest, once the answer is complete; b"" after a Failed."""


class ChatClient(Protocol):
    """How clients hold conversations, or have prompts continued, in one format."""

    name: str
    """Such as openai/chat."""
    stream_type: str
    """The media type of a stream as this format's servers send it."""

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        """A client's request; the last two where the path says it. Raises FormatError."""

    def render_answer(self, answer: Answer, context: Context) -> object:
        """A whole answer for a client, to be dumped as JSON."""

    def writer(self, context: Context) -> StreamWriter:
        """For one stream to a client."""

    def render_error(self, error: ProviderError) -> object:
        """An error for a client, to be dumped as JSON."""


class ChatProvider(Protocol):
    """How providers do, in one format."""

    name: str
    stream_types: frozenset[str]
    """All media types that are read as a stream; application/json only where a stream can be a
    JSON array."""

    def render_request(self, conversation: Conversation) -> Rendered:
        """A provider's request. With `conversation.model` in it where the format has the model in
        the body, and `stream` likewise. Raises FormatError for content that cannot be said."""

    def parse_answer(self, value: object) -> list[Delta]:
        """A provider's whole answer, parsed JSON. Raises FormatError where it is none."""

    def reader(self) -> StreamReader:
        """For one stream of a provider."""

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """A provider's error of any content, also HTML or nothing."""


class ChatCodec(ChatClient, ChatProvider, Protocol):
    """Both halves of one format for conversations."""


class Unwrapper(Protocol):
    """Takes a stream of one format out of the frames of another. Never raises."""

    def feed(self, chunk: bytes) -> bytes:
        """What `chunk` completes."""

    def end(self) -> bytes:
        """What the end of the body leaves."""


class Carrier(ChatProvider, Protocol):
    """A provider's format that is another one in an envelope: the same request but for what
    `Endpoint.change` does to it, the same whole answer, and a stream in other frames."""

    carries: ChatClient

    def unwrapper(self) -> Unwrapper:
        """For one stream."""


class EmbeddingsClient(Protocol):
    """How clients have texts embedded, in one format."""

    name: str

    def parse_request(self, body: Mapping[str, object], *, model: str = "") -> EmbeddingsRequest:
        """A client's request. Raises FormatError."""

    def render_answer(
        self, answer: EmbeddingsAnswer, request: EmbeddingsRequest, context: Context
    ) -> object:
        """An answer for a client, to be dumped as JSON."""

    def render_error(self, error: ProviderError) -> object:
        """See ChatClient."""


class EmbeddingsProvider(Protocol):
    """How providers do, in one format."""

    name: str

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        """A provider's request. Raises FormatError, for more texts than it takes at once too."""

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        """A provider's answer, parsed JSON. Raises FormatError where it is none."""

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """See ChatProvider."""


class EmbeddingsCodec(EmbeddingsClient, EmbeddingsProvider, Protocol):
    """Both halves of one format for embeddings."""


ClientCodec = ChatClient | EmbeddingsClient
ProviderCodec = ChatProvider | EmbeddingsProvider
