"""What is learnt from an answer while its pieces pass: usage, model, content, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from kong_ai_proxy.exchange.kept import MAX_PAYLOAD, KeptText
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.deltas import (
    CONTENT,
    CallArguments,
    Collector,
    Delta,
    Failed,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import json_text
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai.usage import estimate
from kong_ai_proxy.formats.usage import Usage

_TEXTS = frozenset({TextPiece, ThinkingPiece, RefusalPiece, CallArguments})
_CONTENT = frozenset(CONTENT)


class Learned:
    """One answer, whichever format it has."""

    __slots__ = (
        "_characters",
        "_collector",
        "_estimate_prompt",
        "_kept",
        "_room",
        "_usage",
        "error",
        "failed",
        "has_content",
        "model",
        "problem",
    )

    def __init__(
        self, *, keep: bool = False, prompt_estimate: Callable[[], int] | None = None
    ) -> None:
        """`keep` the answer for the log; `prompt_estimate` gives the prompt's tokens for an answer
        that tells no usage."""
        self.has_content = False
        self.model: str | None = None
        self.error: str | None = None
        self.failed: ProviderError | None = None
        self.problem: str | None = None
        self._usage: Usage | None = None
        self._characters = 0
        self._estimate_prompt = prompt_estimate
        self._collector = Collector() if keep else None
        self._room = MAX_PAYLOAD
        self._kept = KeptText() if keep else None

    def note(self, deltas: Iterable[Delta]) -> None:
        """Learn from pieces that pass."""
        for delta in deltas:
            kind = type(delta)
            if kind in _TEXTS:
                self._characters += len(delta.text)  # type: ignore[union-attr]
            elif isinstance(delta, Used):
                self._usage = delta.usage
            elif isinstance(delta, Started):
                self.model = delta.model or self.model
            elif isinstance(delta, Failed):
                self.error, self.failed = delta.error.message, delta.error
            if not self.has_content and kind in _CONTENT:
                self.has_content = True
        if self._collector is not None and self._characters <= self._room and not self.error:
            for delta in deltas:
                self._collector.add(delta)

    def note_error(self, message: str) -> None:
        """The provider said that something went wrong."""
        self.error = message

    def note_usage(self, usage: Usage | None, model: str) -> None:
        """What an answer that has no pieces told."""
        self._usage = usage
        self.model = model or self.model
        self.has_content = True

    def keep(self, body: bytes) -> None:
        """Have an answer in one piece in the log as the client got it."""
        if self._kept is not None:
            self._kept.add(body)
            self._collector = None

    @property
    def usage(self) -> Usage | None:
        """What the provider told last; without that an estimate."""
        known = self._usage
        if self._estimate_prompt is None or (known is not None and known.prompt_tokens):
            return known
        if known is not None and known.completion_tokens:  # some tell only what they wrote
            prompt = self._estimate_prompt()
            total = prompt + known.completion_tokens
            self._usage = replace(known, prompt_tokens=prompt, total_tokens=total, estimated=True)
        elif known is None and self._characters:
            self._usage = estimate(self._characters, self._estimate_prompt())
        return self._usage

    def payload(self) -> str | None:
        """See Reading."""
        if self._collector is None:
            return self._kept.text() if self._kept is not None else None
        answer = self._collector.answer()
        return json_text(openai_chat.CHAT.render_answer(answer, Context(model=self.model or "")))
