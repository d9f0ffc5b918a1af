"""What goes wrong while credentials are fetched."""

from __future__ import annotations


class TokenError(Exception):
    """No credentials. The text is fit for a log: no secret, nothing of an answer's body but known
    error codes."""
