"""xAI: https://docs.x.ai/docs/api-reference."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.base import Call, Provider

# "presencePenalty, frequencyPenalty and stop parameters are not supported by reasoning models.
# Adding them in the request would result in an error": https://docs.x.ai/docs/guides/reasoning.
_REASONING = re.compile(r"^grok-(?:3-mini|4|code)(?!.*non-reasoning)")

# The same page, over time: `reasoning_effort` is an error with grok-3, grok-4, grok-4-fast,
# grok-4-1-fast and grok-4.20, and works with grok-3-mini and grok-4.3.
_FIXED_EFFORT = re.compile(r"^grok-(?:3(?!-mini)|4(?:$|-)|4\.20)")

# Where it works it is low or high with grok-3-mini; none, low, medium or high with grok-4.3; low,
# medium or high with what came later.
_EFFORTS = {"minimal": "low", "xhigh": "high"}
_SWITCHES_OFF = re.compile(r"^grok-4\.3")


def _effort(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The nearest effort that the model has."""
    asked = body.get("reasoning_effort")
    if not isinstance(asked, str):
        return {}
    effort = _EFFORTS.get(asked, asked)
    if effort == "none" and not _SWITCHES_OFF.search(call.model):
        effort = "low"
    if effort == "medium" and call.model.startswith("grok-3-mini"):
        effort = "low"
    return {} if effort == asked else {"reasoning_effort": effort}


XAI = Provider(
    name="xai",
    base_url="https://api.x.ai",
    paths={openai.CHAT: "/v1/chat/completions", openai.RESPONSES: "/v1/responses"},
    changes={openai.CHAT: _effort},
    refused_by_model=(
        (_REASONING, frozenset({"frequency_penalty", "presence_penalty", "stop"})),
        (_FIXED_EFFORT, frozenset({"reasoning_effort"})),
    ),
)
