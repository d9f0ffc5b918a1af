"""The hub, embeddings: texts in, vectors out, whatever format they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kong_ai_proxy.formats.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsRequest:
    """Texts to be embedded."""

    inputs: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    """In place of `inputs`: texts as token numbers, which only OpenAI's own models read."""
    is_array: bool = True
    """False where the client sent one text and no array."""
    model: str = ""
    dimensions: int | None = None
    input_type: str = ""
    """What they are for, in Cohere's words (search_document, search_query, classification,
    clustering); "" where it was not said. Gemini's task types are mapped to these and back."""
    base64: bool = False
    """The client wants each vector as base64 of little-endian floats of 32 bits (OpenAI's
    `encoding_format`)."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Whatever else was said at the top level, under its own name; see Conversation.settings."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """See Conversation.extra."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsAnswer:
    """The vectors, in the order of the texts."""

    vectors: tuple[Sequence[float], ...]
    """Each as the provider's JSON has it: a list of numbers that is not copied."""
    model: str = ""
    id: str = ""
    usage: Usage | None = None
