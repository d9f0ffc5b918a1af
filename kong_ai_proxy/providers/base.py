"""What a provider is: where it lives, and what its own endpoint does not accept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider. Everything here can be read off the provider's API reference."""

    name: str
    base_url: str
    """Scheme, host and port of the provider's own endpoint."""
    paths: Mapping[str, str]
    """The path of each route type; a route type that is not here is not supported."""
    refused: frozenset[str] = frozenset()
    """Parameters that the provider's own endpoint answers with an error; they are dropped."""
    completion_tokens_models: re.Pattern[str] | None = None
    """Models that take `max_completion_tokens` and refuse `max_tokens`."""
    usage_on_request: bool = True
    """Whether a stream tells its usage when `stream_options.include_usage` asks for it."""
    required_headers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By route type the header without which the provider refuses, and a value it must list."""
