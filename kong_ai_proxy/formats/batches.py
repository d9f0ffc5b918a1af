"""Batches: many requests in one file, answered in another, in no format's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kong_ai_proxy.formats.errors import ProviderError

# OpenAI's names for what becomes of a batch.
VALIDATING = "validating"
FAILED = "failed"
IN_PROGRESS = "in_progress"
FINALIZING = "finalizing"
COMPLETED = "completed"
EXPIRED = "expired"
CANCELLING = "cancelling"
CANCELLED = "cancelled"


class BatchRequest(NamedTuple):
    """One line of a batch's input."""

    custom_id: str
    """The client's name for it."""
    url: str
    """Such as /v1/chat/completions."""
    body: Mapping[str, object]
    """In OpenAI's format."""


class BatchAnswer(NamedTuple):
    """One line of a batch's output, as the provider tells it."""

    custom_id: str | None
    """None where the provider told none."""
    body: object = None
    """Parsed JSON, in the provider's format."""
    error: ProviderError | None = None
    """In place of `body`."""
    id: str = ""
    """The provider's; "" where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What a client wants to be made."""

    input_file_id: str
    endpoint: str
    hours: int = 24
    """The time that it may take."""
    metadata: Mapping[str, str] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    """Other members under the names that the client used."""


class Counts(NamedTuple):
    """The requests of a batch."""

    total: int
    completed: int
    failed: int


class BatchFault(NamedTuple):
    """Why a batch failed."""

    message: str
    code: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch. All times are seconds since 1970; None where they are not known, or have not
    come."""

    id: str
    endpoint: str
    input_file_id: str
    status: str
    created_at: int
    hours: int = 24
    model: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    ended_at: int | None = None
    """When it came to be what `status` says."""
    cancelling_at: int | None = None
    expires_at: int | None = None
    counts: Counts | None = None
    """None where the provider does not tell."""
    faults: tuple[BatchFault, ...] = ()
    metadata: Mapping[str, str] | None = None
