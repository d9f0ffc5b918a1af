"""What goes wrong with a format, on either side."""

from __future__ import annotations

from typing import NamedTuple


class FormatError(ValueError):
    """A request or an answer is not what its format says, or cannot be carried over into another.

    The text names the field, what was expected, and is for the client.
    """


class ProviderError(NamedTuple):
    """An error that a provider answered with, in no format's words."""

    message: str
    type: str = ""
    """The provider's name for its kind, such as `overloaded_error` or `ThrottlingException`."""
    status: int = 0
    """The HTTP status that fits; 0 where the provider told none, as inside a stream."""
    code: str | None = None
    param: str | None = None
