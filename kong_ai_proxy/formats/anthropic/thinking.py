"""How much Claude may think, as a request of the Messages format says it.

Newer models decide themselves, guided by an effort; older ones take a budget of tokens:
https://platform.claude.com/docs/en/build-with-claude/thinking
"""

from __future__ import annotations

from collections.abc import Sequence

from kong_ai_proxy.formats.anthropic.models import (
    UNKNOWN,
    always_thinks,
    generation,
    thinks_adaptively,
)
from kong_ai_proxy.formats.conversation import BUDGETS, Conversation, Reasoning
from kong_ai_proxy.formats.conversation import effort as effort_of

_LEAST = 1024
"""Tokens of the smallest budget."""
_LEAST_TOP_P = 0.95
"""With thinking."""
_DROPPED = ["reasoning_effort"]
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}

Dict = dict[str, object]
Turns = Sequence[tuple[str, list[Dict]]]


def put(body: Dict, conversation: Conversation, turns: Turns, room: int) -> list[str]:
    """Put into `body` what `conversation` says of reasoning, and take out what does not go with
    it. `room`: tokens of the answer where the client sets no limit. Returns what was dropped."""
    reasoning = conversation.reasoning
    if reasoning is None:
        return []
    if thinks_adaptively(conversation.model):
        dropped = _put_effort(body, conversation.model, reasoning)
    else:
        dropped = _put_budget(body, conversation, reasoning, turns)
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking["type"] == "disabled":
        return dropped
    tokens = thinking.get("budget_tokens") or BUDGETS.get(reasoning.effort or "", 0)
    if "max_tokens" not in conversation.settings:
        body["max_tokens"] = room + tokens
    return dropped + _drop_sampling(body)


def _put_effort(body: Dict, model: str, reasoning: Reasoning) -> list[str]:
    effort = reasoning.effort
    if effort is None and reasoning.budget is not None and reasoning.budget >= 0:
        effort = effort_of(reasoning.budget)
    if effort == "none":
        if always_thinks(model):
            return _DROPPED
        body["thinking"] = {"type": "disabled"}
        return []
    body["thinking"] = {"type": "adaptive", **_display(reasoning)}
    if effort is None:
        return []
    if effort not in _EFFORTS:
        return _DROPPED
    known = _EFFORTS[effort]
    if known == "xhigh" and generation(model) == (4, 6):
        known = "max"  # what that one has above high
    output = body.get("output_config")
    body["output_config"] = {**(output if isinstance(output, dict) else {}), "effort": known}
    return []


def _put_budget(
    body: Dict, conversation: Conversation, reasoning: Reasoning, turns: Turns
) -> list[str]:
    budget, effort = reasoning.budget, reasoning.effort
    if budget is None:
        if effort is None:
            return []
        if effort not in BUDGETS:
            return _DROPPED
        budget = BUDGETS[effort]
    known = generation(conversation.model)
    if budget == 0:
        # Claude does not think unless asked to; others that speak this format may.
        body |= {"thinking": {"type": "disabled"}} if known == UNKNOWN else {}
        return []
    if UNKNOWN < known < (3, 7) or _forces_tool(body) or not _may_think(turns):
        return _DROPPED
    fitting = _fitting(BUDGETS["medium"] if budget < 0 else budget, conversation)
    if not fitting:
        return _DROPPED
    body["thinking"] = {"type": "enabled", "budget_tokens": fitting, **_display(reasoning)}
    return []


def _fitting(budget: int, conversation: Conversation) -> int:
    """The budget that leaves half of the client's `max_tokens` to the answer; 0 for none."""
    limit = conversation.settings.get("max_tokens")
    if type(limit) is int:
        if limit <= _LEAST:
            return 0
        budget = min(budget, limit // 2)
    return max(budget, _LEAST)


def _display(reasoning: Reasoning) -> Dict:
    if reasoning.visible is None:
        return {}
    return {"display": "summarized" if reasoning.visible else "omitted"}


def _forces_tool(body: Dict) -> bool:
    """With a budget, a tool may not be demanded."""
    choice = body.get("tool_choice")
    return isinstance(choice, dict) and choice["type"] in ("any", "tool")


def _may_think(turns: Turns) -> bool:
    """With a budget, the model's turn that is going on has to begin with its thoughts. Clients of
    other formats do not send them back."""
    if turns[-1][0] == "assistant":
        return False
    results = turns[-1][1][0]["type"] == "tool_result"
    return not results or len(turns) < 2 or "thinking" in str(turns[-2][1][0]["type"])


def _drop_sampling(body: Dict) -> list[str]:
    """Thinking goes with the usual temperature only, with no `top_k` and hardly any `top_p`."""
    top_p = body.get("top_p")
    unfit = {
        "temperature": body.get("temperature", 1) != 1,
        "top_k": "top_k" in body,
        "top_p": isinstance(top_p, int | float) and not _LEAST_TOP_P <= top_p <= 1,
    }
    names = [name for name, is_unfit in unfit.items() if is_unfit]
    for name in names:
        del body[name]
    return names
