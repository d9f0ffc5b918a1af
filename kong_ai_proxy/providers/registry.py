"""Every provider by the name that a configuration uses."""

from __future__ import annotations

from kong_ai_proxy.providers.base import Provider
from kong_ai_proxy.providers.openai import OPENAI

PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in (OPENAI,)}
