"""What a choice of chat completions says, in one piece (`message`) or many (`delta`).

https://platform.openai.com/docs/api-reference/chat/streaming. Servers that are compatible differ:
thoughts are `reasoning_content` (https://api-docs.deepseek.com/guides/thinking_mode, vLLM, xAI) or
`reasoning` (https://inference-docs.cerebras.ai/capabilities/reasoning) or parts of the content
(https://docs.mistral.ai/capabilities/reasoning,
https://docs.databricks.com/aws/en/machine-learning/model-serving/score-reason-models); pieces
of tool calls come without an index, with their id in each piece, or whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from typing_extensions import override

from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import json_text, media_of_url, object_of, objects_of, text_of
from kong_ai_proxy.formats.openai.answers import (
    FAILURES,
    finish_reason,
    logprobs_content,
    number_of,
    stop_sequence,
)
from kong_ai_proxy.formats.openai.chat_request import call_signature
from kong_ai_proxy.formats.openai.errors import error_of
from kong_ai_proxy.formats.openai.usage import usage

Object = Mapping[str, object]


def started(value: Object) -> Started:
    """The beginning of an answer, of any of its chunks."""
    return Started(text_of(value, "id"), text_of(value, "model"), number_of(value.get("created")))


class ChoiceReader(ABC):
    """Reads one choice. What comes after its finish reason is passed over."""

    __slots__ = ("finished", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.finished = False

    def read(self, choice: Object, out: list[Delta]) -> None:
        """What a choice of a chunk, or of a whole answer, adds. The last piece is a Failed where
        its finish reason is no good one."""
        if self.finished:
            return
        self._said(choice, out)
        reason = choice.get("finish_reason")
        if reason:
            self.finished = True
            if reason in FAILURES:
                error = error_of(choice) or ProviderError("the provider stopped with an error")
                out.append(Failed(error))
                return
            told = finish_reason(reason, self._has_called())
            out.append(Finished(told, stop_sequence(choice), self.index))

    def end(self, out: list[Delta]) -> None:
        """The answer is complete, whether the choice said so or not."""
        if not self.finished:
            self.finished = True
            out.append(Finished(finish_reason(None, self._has_called()), None, self.index))

    @abstractmethod
    def _said(self, choice: Object, out: list[Delta]) -> None:
        """What its text, calls and the like add."""

    def _has_called(self) -> bool:
        return False


class TextReader(ChoiceReader):
    """A choice of completions (https://platform.openai.com/docs/api-reference/completions)."""

    __slots__ = ()

    @override
    def _said(self, choice: Object, out: list[Delta]) -> None:
        text = choice.get("text")
        if text and isinstance(text, str):
            out.append(TextPiece(text, self.index))
        logprobs = choice.get("logprobs")
        if logprobs and isinstance(logprobs, dict) and (content := logprobs_content(logprobs)):
            out.append(Logprobs(content, self.index))


class _Call:
    """A tool call under way; its number is -1 until it has begun."""

    __slots__ = ("id", "number")

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.number = -1


class MessageReader(ChoiceReader):
    """A choice of chat."""

    __slots__ = ("_by_id", "_by_index", "_count", "_last", "_thinks")

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._last: _Call | None = None
        self._count = 0
        self._thinks = False

    @override
    def _has_called(self) -> bool:
        return self._count > 0

    @override
    def _said(self, choice: Object, out: list[Delta]) -> None:
        added = choice.get("delta")
        if type(added) is dict:
            content = added.get("content")
            # Nearly every chunk is a text alone, perhaps with the role again.
            if (
                content
                and type(content) is str
                and (len(added) == 1 or (len(added) == 2 and "role" in added))
            ):
                out.append(TextPiece(content, self.index))
            else:
                self._added(added, out)
        else:
            message = choice.get("message")
            if isinstance(message, dict):
                self._added(message, out, whole=True)
        logprobs = choice.get("logprobs")
        if logprobs and isinstance(logprobs, dict):
            self._logprobs(logprobs, out)

    def _logprobs(self, logprobs: Object, out: list[Delta]) -> None:
        content = logprobs.get("content")
        if content and isinstance(content, list):
            out.append(Logprobs(content, self.index))

    def _added(self, added: Object, out: list[Delta], *, whole: bool = False) -> None:
        self._thoughts(added, out, whole)
        content = added.get("content")
        if content:
            if isinstance(content, str):
                out.append(TextPiece(content, self.index))
            elif isinstance(content, list):
                self._parts(added, out)
        elif transcript := text_of(object_of(added, "audio"), "transcript"):
            out.append(TextPiece(transcript, self.index))
        if refusal := text_of(added, "refusal"):
            out.append(RefusalPiece(refusal, self.index))
        for image in objects_of(added, "images"):
            self._image(image, out)
        self._calls(added, out)

    def _calls(self, added: Object, out: list[Delta]) -> None:
        if added.get("tool_calls"):
            for piece in objects_of(added, "tool_calls"):
                self._call_piece(piece, object_of(piece, "function"), out)
        if added.get("function_call"):  # the legacy format's only call
            self._call_piece({"index": 0}, object_of(added, "function_call"), out)

    def _thoughts(self, added: Object, out: list[Delta], whole: bool) -> None:
        """Servers that tell a thought in two members say the same in both. `thinking_blocks` has
        the signatures beside, in streams behind the text that went before."""
        text = added.get("reasoning_content") or added.get("reasoning")
        blocks = objects_of(added, "thinking_blocks") if "thinking_blocks" in added else ()
        if text and isinstance(text, str) and not (whole and blocks):
            self._thinks = True
            out.append(ThinkingPiece(text, self.index))
        for block in blocks:
            self._thinking_block(block, out)

    def _thinking_block(self, block: Object, out: list[Delta]) -> None:
        data, signature = text_of(block, "data"), text_of(block, "signature")
        if block.get("type") == "redacted_thinking" and data:
            out.append(ThinkingRedacted(data, self.index))
            return
        text = text_of(block, "thinking")
        if text and not self._thinks:
            out.append(ThinkingPiece(text, self.index))
        if signature:
            out.append(ThinkingSigned(signature, self.index))
            self._thinks = False

    def _parts(self, added: Object, out: list[Delta]) -> None:
        for part in objects_of(added, "content"):
            kind = part.get("type")
            if kind == "text" and (text := text_of(part, "text")):
                out.append(TextPiece(text, self.index))
            elif kind == "thinking":
                thought = part.get("thinking")
                texts = [text_of(each, "text") for each in objects_of(part, "thinking")]
                text = thought if isinstance(thought, str) else "".join(texts)
                if text:
                    out.append(ThinkingPiece(text, self.index))
            elif kind == "reasoning":
                self._summaries(part, out)
            elif kind == "refusal" and (text := text_of(part, "refusal")):
                out.append(RefusalPiece(text, self.index))
            elif kind == "image_url":
                self._image(part, out)

    def _summaries(self, part: Object, out: list[Delta]) -> None:
        """Thoughts as Databricks tells them, signed where Claude thought them."""
        for summary in objects_of(part, "summary"):
            if text := text_of(summary, "text"):
                out.append(ThinkingPiece(text, self.index))
            if signature := text_of(summary, "signature"):
                out.append(ThinkingSigned(signature, self.index))

    def _image(self, image: Object, out: list[Delta]) -> None:
        url = text_of(object_of(image, "image_url"), "url") or text_of(image, "image_url")
        if url:
            try:
                media = media_of_url("image", url)
            except FormatError as error:
                out.append(Failed(ProviderError(f"an image of the answer: {error}", status=502)))
                return
            out.append(MediaPiece(media, self.index))

    def _call_piece(self, piece: Object, function: Object, out: list[Delta]) -> None:
        """A call begins with its first piece that has a name or arguments."""
        name, arguments = text_of(function, "name"), function.get("arguments")
        call = self._call(piece, name)
        text = json_text(arguments) if isinstance(arguments, dict) else arguments
        text = text if isinstance(text, str) else ""
        if call.number < 0:
            if not name and not text:
                return
            call.number = self._count
            self._count += 1
            out.append(CallStarted(call.number, call.id, name, call_signature(piece), self.index))
        if text:
            out.append(CallArguments(call.number, text, self.index))

    def _call(self, piece: Object, name: str) -> _Call:
        """The call that a piece belongs to.

        A known index, or else a known id, goes on with its call; so does a piece without a name.
        A known index with another id and a name is a new call: some servers number all calls 0.
        """
        index, identity = piece.get("index"), text_of(piece, "id")
        if type(index) is int:
            call = self._by_index.get(index)
            if call is not None and not (name and identity and call.id not in ("", identity)):
                call.id = call.id or identity
                return call
        else:
            call = self._by_id.get(identity) if identity else None
            if call is None and not name:
                call = self._last
            if call is not None:
                return call
        return self._new_call(index, identity)

    def _new_call(self, index: object, identity: str) -> _Call:
        self._last = call = _Call(identity)
        if type(index) is int:
            self._by_index[index] = call
        if identity:
            self._by_id[identity] = call
        return call


def read_answer(value: object, new: Callable[[int], ChoiceReader], route_type: str) -> list[Delta]:
    """A whole answer. `new` makes the reader of the choice with a number. Raises FormatError."""
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
        error = error_of(value)
        if error is not None:
            return [Failed(error)]
        raise FormatError(f"'choices' not in {route_type} response")
    deltas: list[Delta] = [started(value)]
    for choice in objects_of(value, "choices"):
        reader = new(number_of(choice.get("index")))
        reader.read(choice, deltas)
        if isinstance(deltas[-1], Failed):
            return deltas
        reader.end(deltas)
    used = usage(value.get("usage"), value.get("service_tier"))
    if used is not None:
        deltas.append(Used(used))
    return deltas
