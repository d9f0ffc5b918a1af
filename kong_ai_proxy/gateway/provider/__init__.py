"""The stand-in provider: OpenAI's API on this machine, for development and tests."""

from kong_ai_proxy.gateway.provider.application import (
    MAX_BODY_BYTES,
    Provider,
    Seen,
    application,
)

__all__ = ["MAX_BODY_BYTES", "Provider", "Seen", "application"]
