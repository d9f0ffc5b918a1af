"""Files that clients have uploaded, in no format's words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileObject:
    """One file, without its content."""

    id: str
    size: int
    """In bytes."""
    created_at: int
    """Seconds since 1970, as are all times here."""
    filename: str
    purpose: str
    """Under OpenAI's names: batch, batch_output, user_data ..."""
    expires_at: int | None = None
    status: str = "processed"
    """uploaded, processed or error."""
    status_details: str | None = None
    """Why it is an error."""
