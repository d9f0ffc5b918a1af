"""Answers of servers that only continue text.

An answer is {"generated_text"}, alone or in a list, or in a list called `data` beside `usage`. A
stream, and what an answer may say beside the text, are those of Hugging Face's servers:
https://huggingface.co/docs/text-generation-inference/reference/api_reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.deltas import (
    Delta,
    Failed,
    Finished,
    FinishReason,
    Started,
    TextPiece,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import object_of, text_of
from kong_ai_proxy.formats.huggingface.common import error_of
from kong_ai_proxy.formats.huggingface.generate import GENERATE
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_END_OF_PROMPT = "[/INST]"
_END = "</s>"


def whole(value: object) -> list[Delta]:
    """An answer in one piece. Raises FormatError, with Kong's texts."""
    if isinstance(value, dict) and (error := error_of(value)):
        return [Failed(error)]
    outer: Mapping[str, object] = value if isinstance(value, dict) else {}
    items = outer.get("data") if "data" in outer else value
    if isinstance(items, list) and not items:
        raise FormatError("response data is empty from llama2 endpoint")
    item = items[0] if isinstance(items, list) else items
    if not isinstance(item, dict):
        raise FormatError("cannot parse response from llama2 endpoint")
    text = item.get("generated_text")
    if not isinstance(text, str):
        raise FormatError("response did not contain a system reply")
    answer = text.rpartition(_END_OF_PROMPT)[2].strip().removesuffix(_END).rstrip()
    said: list[Delta] = [TextPiece(answer)] if answer else []
    started = Started(text_of(outer, "id"), text_of(outer, "model"))
    return [started, *said, *_ended(object_of(item, "details"), object_of(outer, "usage"))]


class Reader:
    """Reads one stream; see codec.StreamReader. The space that Llama begins with is no part of
    what it says."""

    __slots__ = ("_reader", "_said")

    def __init__(self) -> None:
        self._reader = GENERATE.reader()
        self._said = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """See codec.StreamReader."""
        found = self._reader.feed(chunk)
        return found if self._said else self._trimmed(found)

    def end(self) -> list[Delta]:
        """See codec.StreamReader."""
        return self._trimmed(self._reader.end())

    def _trimmed(self, deltas: list[Delta]) -> list[Delta]:
        found: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextPiece) and not self._said:
                delta = TextPiece(delta.text.lstrip())
                if not delta.text:
                    continue
                self._said = True
            found.append(delta)
        return found


def _ended(details: Mapping[str, object], usage: Mapping[str, object]) -> list[Delta]:
    reason: FinishReason = "length" if details.get("finish_reason") == "length" else "stop"
    prefill = details.get("prefill")
    prompt = _count(usage.get("prompt_tokens"))
    prompt = prompt or (len(prefill) if isinstance(prefill, list) else 0)
    generated = usage.get("completion_tokens", details.get("generated_tokens"))
    if generated is None and not prompt:
        return [Finished(reason)]
    completion = _count(generated)
    total = _count(usage.get("total_tokens")) or min(prompt + completion, MAX_COUNT)
    used = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
    return [Finished(reason), Used(used)]


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return min(value, MAX_COUNT)
    return 0
