"""Whom TLS connections trust: the system's certificates, and those of a file where one is given."""

from __future__ import annotations

import ssl
from functools import lru_cache


def context(ca_file: str | None) -> ssl.SSLContext:
    """A new context. It takes tens of milliseconds, in which nothing else is done. Raises OSError
    or ssl.SSLError for a file that cannot be loaded."""
    made = ssl.create_default_context()
    if ca_file:
        made.load_verify_locations(ca_file)
    return made


@lru_cache(maxsize=8)
def shared_context(ca_file: str | None) -> ssl.SSLContext:
    """As `context`, once in a process: nobody changes it."""
    return context(ca_file)
