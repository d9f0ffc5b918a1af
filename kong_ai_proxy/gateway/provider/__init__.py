"""The stand-in provider: OpenAI's API on this machine, for development and tests."""

from kong_ai_proxy.gateway.provider.application import (
    MAX_BODY_BYTES,
    Provider,
    application,
)
from kong_ai_proxy.gateway.provider.http import Seen

__all__ = ["MAX_BODY_BYTES", "Provider", "Seen", "application"]
