"""What differs between Gemini's models: how they think, and whether they know system prompts."""

from __future__ import annotations

import re

from kong_ai_proxy.formats.conversation import BUDGETS, Reasoning, effort

_GEMINI = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?![\d])")
# https://ai.google.dev/gemma/docs/core/prompt-structure
_OLD_GEMMA = re.compile(r"(?:code)?gemma-?[123](?!\d)")

_RANGES = (
    (re.compile("pro"), (128, 32768)),
    (re.compile("flash-lite"), (512, 24576)),
    (re.compile("flash"), (1, 24576)),
)
"""Tokens of thinking that models of 2.5 take, besides 0 (not pro) and -1:
https://ai.google.dev/gemini-api/docs/thinking#set-budget."""


def short_name(model: str) -> str:
    """A model's own name, of `models/x` and `publishers/google/models/x` too."""
    return model.rpartition("/")[2].lower()


def has_system_prompt(name: str) -> bool:
    """Whether Kong lets system prompts through to this model."""
    return not name.startswith("gemini-1.0")


def wants_system_in_turn(name: str) -> bool:
    """Whether the model only knows users and models, and reads instructions in the first turn."""
    return _OLD_GEMMA.match(name) is not None


def checks_signatures(name: str) -> bool:
    """Whether a function call of the current turn has to bring its thought signature."""
    return _generation(name) >= (3, 0)


def thinking_config(reasoning: Reasoning, name: str) -> dict[str, object] | None:
    """Gemini's `thinkingConfig`; None for models that do not think.

    Levels from Gemini 3 on, budgets before, as Google maps OpenAI's efforts
    (https://ai.google.dev/gemini-api/docs/openai#thinking). Thinking cannot be turned off in 2.5
    Pro and in 3: there the least is asked for.
    """
    generation = _generation(name)
    if (0, 0) < generation < (2, 5) or _OLD_GEMMA.match(name):
        return None
    config: dict[str, object] = {}
    if generation >= (3, 0):
        config |= _level(reasoning, name)
    elif reasoning.budget is not None or reasoning.effort is not None:
        config["thinkingBudget"] = _budget(reasoning, name)
    if reasoning.visible is not None:
        config["includeThoughts"] = reasoning.visible
    return config


def _generation(name: str) -> tuple[int, int]:
    """(2, 5) of gemini-2.5-flash; (0, 0) where the name does not tell it."""
    found = _GEMINI.match(name)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _level(reasoning: Reasoning, name: str) -> dict[str, object]:
    wanted = reasoning.effort
    if wanted is None:
        if reasoning.budget is None or reasoning.budget < 0:
            return {}  # as the model likes, which is what it does unless told otherwise
        wanted = effort(reasoning.budget)
    if wanted in ("none", "minimal"):
        return {"thinkingLevel": "LOW" if "pro" in name else "MINIMAL"}
    if wanted == "medium":
        only_low_and_high = _generation(name) == (3, 0) and "pro" in name
        return {"thinkingLevel": "HIGH" if only_low_and_high else "MEDIUM"}
    return {"thinkingLevel": "LOW" if wanted == "low" else "HIGH"}


def _budget(reasoning: Reasoning, name: str) -> int:
    wanted = reasoning.budget
    if wanted is None:
        wanted = BUDGETS.get(reasoning.effort or "", BUDGETS["high"])
    least, most = next((found for pattern, found in _RANGES if pattern.search(name)), (0, wanted))
    if wanted < 0 or (wanted == 0 and "pro" not in name):
        return wanted
    return min(max(wanted, least), most)
