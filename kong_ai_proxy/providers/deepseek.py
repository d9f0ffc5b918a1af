"""DeepSeek: https://api-docs.deepseek.com/api/create-chat-completion."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Provider
from kong_ai_proxy.providers.openai_messages import renamed, without_developer


def _change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Roles are system, user, assistant and tool, and the limit is `max_tokens`. No thinking is
    another switch than how much of it (https://api-docs.deepseek.com/guides/thinking_mode); the
    efforts themselves DeepSeek maps."""
    changes = without_developer(body, call)
    changes |= renamed(body, "max_completion_tokens", "max_tokens")
    if body.get("reasoning_effort") == "none":
        changes["reasoning_effort"] = REMOVED
        if body.get("thinking") is None:
            changes["thinking"] = {"type": "disabled"}
    return changes


DEEPSEEK = Provider(
    name="deepseek",
    base_url="https://api.deepseek.com",
    paths={openai.CHAT: "/v1/chat/completions"},
    changes={openai.CHAT: _change},
    # "Setting logprobs, top_logprobs will trigger an error", while sampling parameters have no
    # effect: https://api-docs.deepseek.com/guides/reasoning_model.
    refused_by_model=(
        (re.compile(r"^deepseek-reasoner"), frozenset({"logprobs", "top_logprobs"})),
    ),
)
