"""Alibaba's Dashscope (Model Studio), its endpoint for OpenAI clients:
https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-openai-chat-completions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.conversation import BUDGETS
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Provider
from kong_ai_proxy.providers.dashscope import images as dashscope_images
from kong_ai_proxy.providers.openai_messages import without_developer

# Models with a switch for thinking, and of those the open ones, which think unless told otherwise:
# https://www.alibabacloud.com/help/en/model-studio/deep-thinking.
_HYBRID = re.compile(r"^qwen(?:-(?:plus|flash|turbo)|3)(?!.*(?:coder|instruct|thinking))")
_THINKS_UNASKED = re.compile(r"^qwen3-[0-9.]+b(?:-a[0-9.]+b)?$")

# Longer ones exceed what the smaller models can think, and are an error there.
_BUDGETS = {name: tokens for name, tokens in BUDGETS.items() if 0 < tokens <= BUDGETS["high"]}


def _change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """Roles are system, user, assistant, tool and function; thinking is switched on and off."""
    return {**without_developer(body, call), **_thinking(body, call)}


def _thinking(body: Mapping[str, object], call: Call) -> dict[str, object]:
    """An effort as `enable_thinking` and `thinking_budget`. An answer in one piece comes without
    thoughts unless the model's default is otherwise: "parameter.enable_thinking must be set to
    false for non-streaming calls" (https://www.alibabacloud.com/help/en/model-studio/error-code)."""
    if not _HYBRID.search(call.model) or body.get("enable_thinking") is not None:
        return {}
    effort = body.get("reasoning_effort")
    changes: dict[str, object] = {} if effort is None else {"reasoning_effort": REMOVED}
    if effort == "none" or not call.stream:
        never = effort == "none" or _THINKS_UNASKED.search(call.model)
        return {**changes, "enable_thinking": False} if never else changes
    if effort is not None:
        changes["enable_thinking"] = True
    if effort in _BUDGETS and body.get("thinking_budget") is None:
        changes["thinking_budget"] = _BUDGETS[str(effort)]
    return changes


def _base_url(options: ModelOptions) -> str:
    """Singapore, or Beijing: a key of one is unknown to the other."""
    site = "dashscope-intl" if options.dashscope.international else "dashscope"
    return f"https://{site}.aliyuncs.com"


DASHSCOPE = Provider(
    name="dashscope",
    base_url=_base_url,
    paths={
        openai.CHAT: "/compatible-mode/v1/chat/completions",
        openai.EMBEDDINGS: "/compatible-mode/v1/embeddings",
    },
    changes={openai.CHAT: _change},
    flows={
        openai.IMAGE_GENERATIONS: dashscope_images.GENERATE,
        openai.IMAGE_EDITS: dashscope_images.EDIT,
    },
)
