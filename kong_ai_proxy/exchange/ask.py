"""One client's request, understood: which targets can answer it, and what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kong_ai_proxy.exchange.asking import NATIVE_ONLY, Asked
from kong_ai_proxy.exchange.case import Content
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.subpath import subpath
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import JsonObject

_TURNS = ("messages", "contents", "input")
"""Members of requests that hold a conversation, in one format or the other."""
_SYSTEM = ("system", "systemInstruction", "system_instruction", "instructions")
_PROMPTS = ("prompt", "input", "inputs", "query", "instructions")
"""Members that say what is wanted, in requests that are no conversations."""
_LOOKS = frozenset({"DELETE", "GET", "HEAD"})
_NATIVE_THING = re.compile(
    r"/(?:batches|batchPredictionJobs|cachedContents|interactions|model-invocation-job)/[^/]"
)
"""In paths of native formats: what is named and not made, such as a batch to cancel."""
_NATIVE_BATCHES = frozenset(
    {"asyncBatchEmbedContent", "batchGenerateContent", "messages/batches", "model-invocation-job"}
)


class Ask(NamedTuple):
    """What every attempt at it starts from. Never changed by one."""

    request: ClientRequest
    content: Content
    native: Asked | None
    """What is asked for in a native format; None in OpenAI's, where the route type says it."""
    asked: Asked
    """The same, or what the first candidate's route type says."""
    candidates: tuple[int, ...]
    """Indexes of the targets among which may be chosen. At least one."""

    @property
    def method(self) -> str:
        """What providers are asked with."""
        return self.asked.method(self.request.method)

    @property
    def seeks(self) -> bool:
        """Whether it is about a thing that maybe only one of the targets keeps: a file, a batch, a
        response, an assistant, a video. Who has it not answers with 404."""
        if self._is_native_only:
            return self.method in _LOOKS or bool(_NATIVE_THING.search(self._native_path))
        collections = openai.OPERATIONS[self.asked.operation].collections
        if not collections:
            return False
        return self.method in _LOOKS or self._makes_batch or self._goes_below(collections)

    @property
    def is_costly(self) -> bool:
        """Whether it makes something that is paid for even where nobody has its answer: a batch is
        not made twice."""
        return self._makes_batch and self.method == "POST"

    @property
    def _makes_batch(self) -> bool:
        """Or does something to one. A batch that is made names a file."""
        if self._is_native_only:
            native = self.asked.native
            is_known = native is not None and native.operation in _NATIVE_BATCHES
            return is_known or "/batchPredictionJobs" in self._native_path
        return self.asked.route_type == openai.BATCHES

    @property
    def _is_native_only(self) -> bool:
        return self.asked.route_type == NATIVE_ONLY

    @property
    def _native_path(self) -> str:
        return self.asked.native.path if self.asked.native else ""

    def _goes_below(self, collections: tuple[str, ...]) -> bool:
        try:
            return bool(subpath(self.request, collections).rest)
        except Refused:  # by every target
            return False

    def prompt(self) -> str:
        """The text that says what is wanted: of a conversation the user's last words. "" where
        there is none. Takes no longer for a long conversation."""
        spoken = (_said(turn) for turn in reversed(_turns(self._value)) if _is_users(turn))
        return next(filter(None, spoken), "") or self._wanted()

    def opening(self) -> str:
        """How the conversation began: what stays the same from one of its requests to the next, so
        that a provider has it in its prompt cache. "" where there is none."""
        parts = [_said({"content": self._value.get(name)}) for name in _SYSTEM]
        for turn in _turns(self._value):
            parts.append(_said(turn))
            if _is_users(turn):
                return "\n".join(parts)
        return self._wanted()

    @property
    def _value(self) -> Mapping[str, object]:
        return self.content.value if isinstance(self.content, JsonObject) else {}

    def _wanted(self) -> str:
        found = (_said({"content": self._value.get(name)}) for name in _PROMPTS)
        return next(filter(None, found), "")


def _turns(value: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """The turns of a conversation, in whichever format."""
    for name in _TURNS:
        turns = value.get(name)
        if isinstance(turns, list) and any(isinstance(each, dict) for each in turns):
            return turns
    return ()


def _is_users(turn: object) -> bool:
    """Gemini's turns are the user's where they do not say whose they are."""
    role = turn.get("role", "user") if isinstance(turn, dict) else None
    return isinstance(role, str) and role.lower() == "user"


def _said(turn: object) -> str:
    """The text of a turn, without media, calls and their outcomes."""
    if not isinstance(turn, dict):
        return ""
    return "\n".join(_texts(turn.get("content") or turn.get("parts")))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from _texts(content.get("parts"))
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
