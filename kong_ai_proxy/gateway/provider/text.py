"""The stand-in provider's words: how it counts tokens and what it says.

A token is a word with the white space before it, so that a streamed answer comes word by word.
Everything is deterministic: the same request gets the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN = re.compile(r"\s*\S+|\s+$")
_LONGEST_QUOTE: Final = 200

LABEL: Final = "This is the stand-in provider of kong-ai-proxy, not a language model."


def tokens(text: str) -> list[str]:
    """The text in pieces that give it back when joined."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(tokens(text))


def quote(text: str) -> str:
    """A text on one line, short enough to be quoted in an answer."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}..."


def reply(question: str, choice: int = 0) -> str:
    """The answer to a question. `choice` tells the answers to one request apart."""
    said = f'You said: "{quote(question)}"' if question.strip() else "You said nothing."
    which = f" (Answer {choice + 1}.)" if choice else ""
    return f"{LABEL} {said}{which}"


def reply_to_tool(question: str, result: str, choice: int = 0) -> str:
    """The answer to a question with the help of a tool's result."""
    which = f" (Answer {choice + 1}.)" if choice else ""
    return f'{LABEL} The tool answered "{quote(result)}" to "{quote(question)}".{which}'


@dataclass(frozen=True)
class Generated:
    """A text cut to what the request allows, and why it ended: `stop` or `length`."""

    pieces: tuple[str, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def generate(text: str, stop: list[str], limit: int | None) -> Generated:
    """Cut `text` before the first stop sequence and after `limit` tokens."""
    ends = [at for at in (text.find(word) for word in stop if word) if at >= 0]
    pieces = tokens(text[: min(ends)] if ends else text)
    if limit is not None and len(pieces) > limit:
        return Generated(tuple(pieces[:limit]), "length")
    return Generated(tuple(pieces), "stop")


def usage(prompt: int, completion: int) -> dict[str, object]:
    """OpenAI's usage object for a text answer."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
