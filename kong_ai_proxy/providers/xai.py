"""xAI: https://docs.x.ai/docs/api-reference."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import REMOVED
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

# "quality, size or style are not supported by the xAI API at the moment"
# (https://docs.x.ai/docs/guides/image-generations); the reference has none of the others. Models
# that came later take a quality, and aspect_ratio and resolution instead of a size. "image" or
# "imagine" is in all their names.
_DRAWS = re.compile(r"imag")
_NO_IMAGE_PARAMETERS = frozenset(
    {
        "background",
        "moderation",
        "output_compression",
        "output_format",
        "partial_images",
        "size",
        "style",
    }
)
_DRAWS_PLAINLY = re.compile(r"^grok-2-image")
_QUALITIES = {"low": "low", "medium": "medium", "high": "high", "hd": "high"}


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


def _quality(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Under the names that xAI has; "standard" and "auto" are what comes anyway."""
    asked = body.get("quality")
    if not isinstance(asked, str) or _QUALITIES.get(asked) == asked:
        return {}
    return {"quality": _QUALITIES.get(asked, REMOVED)}


XAI = Provider(
    name="xai",
    base_url="https://api.x.ai",
    paths={
        openai.CHAT: "/v1/chat/completions",
        openai.RESPONSES: "/v1/responses",
        openai.IMAGE_GENERATIONS: "/v1/images/generations",
    },
    changes={openai.CHAT: _effort, openai.IMAGE_GENERATIONS: _quality},
    refused_by_model=(
        (_REASONING, frozenset({"frequency_penalty", "presence_penalty", "stop"})),
        (_FIXED_EFFORT, frozenset({"reasoning_effort"})),
        (_DRAWS, _NO_IMAGE_PARAMETERS),
        (_DRAWS_PLAINLY, frozenset({"quality"})),
    ),
)
