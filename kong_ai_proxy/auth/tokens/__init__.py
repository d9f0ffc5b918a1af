"""Credentials that have to be fetched: tokens of Google and Azure, keys of AWS.

Only the relay and the plugin server use this package; all others get credentials as values.
"""

from __future__ import annotations

from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.tokens.source import Tokens

__all__ = ["TokenError", "Tokens"]
