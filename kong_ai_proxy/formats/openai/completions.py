"""OpenAI's completions: one prompt, continued.

https://platform.openai.com/docs/api-reference/completions. The format has one prompt and one text
in its answers: thoughts, calls and media of a model that makes them are not in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
    with_extra,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Choice,
    Delta,
    Failed,
    Finished,
    Logprobs,
    RefusalPiece,
    Started,
    TextPiece,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_array, an_object, wrong
from kong_ai_proxy.formats.openai import errors as openai_errors
from kong_ai_proxy.formats.openai.answers import plain_logprobs, usage_object
from kong_ai_proxy.formats.openai.chat_pieces import TextReader, read_answer
from kong_ai_proxy.formats.openai.chat_reader import ChunkReader
from kong_ai_proxy.formats.openai.chat_request import settings, wants_usage
from kong_ai_proxy.formats.openai.chat_stream import DONE, error_event, head, usage_chunk
from kong_ai_proxy.formats.usage import Usage

_KNOWN = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream_options",
        "suffix",
        "temperature",
        "top_k",
        "top_p",
        "user",
    }
)
"""Settings that the format has, beside `logprobs`."""

_dumps = orjson.dumps


class _Completions:
    """See ChatCodec."""

    name = "openai/completions"
    stream_type = "text/event-stream"
    stream_types = frozenset({"text/event-stream"})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        said = {name: value for name, value in body.items() if value is not None}
        prompt = _prompt(said.pop("prompt", None))
        named = openai.requested_model({"model": said.pop("model", None)}) or ""
        asked = bool(said.pop("stream", False))
        return Conversation(
            messages=(Message("user", (Text(prompt),)),),
            model=model or named,
            stream=asked if stream is None else stream,
            wants_usage=wants_usage(said),
            extra=an_object(said.pop("extra_body", {}), "extra_body"),
            settings=_with_chat_logprobs(settings(said)),
            is_completion=True,
        )

    def render_request(self, conversation: Conversation) -> Rendered:
        return _render_request(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        return read_answer(value, TextReader, openai.COMPLETIONS)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return _render_answer(answer, context)

    def reader(self) -> StreamReader:
        return ChunkReader(TextReader)

    def writer(self, context: Context) -> StreamWriter:
        return CompletionsWriter(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return openai_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return openai_errors.render_error(error)


COMPLETIONS: ChatCodec = _Completions()


# ---- requests


def _prompt(value: object) -> str:
    """The one text of a request. Raises FormatError."""
    prompts = [value] if isinstance(value, str) else an_array(value, "prompt")
    if not prompts or not all(isinstance(each, str) for each in prompts):
        wrong("prompt", "a string, or an array of one; token numbers cannot be carried over")
    if len(prompts) > 1:
        wrong("prompt", "one text, as this provider takes; send one request for each of several")
    return a_text(prompts[0], "prompt")


def _with_chat_logprobs(said: dict[str, object]) -> dict[str, object]:
    """`logprobs` is a number here, and a flag and a number in the hub, as in chat."""
    count = said.get("logprobs")
    if type(count) is int:
        said["logprobs"] = True
        said["top_logprobs"] = count
    return said


def _render_request(conversation: Conversation) -> Rendered:
    body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
    body["prompt"] = _one_text(conversation)
    said = dict(conversation.settings)
    top = said.pop("top_logprobs", 0)
    if said.get("logprobs"):
        body["logprobs"] = top
    said.pop("logprobs", None)
    body.update((name, value) for name, value in said.items() if name in _KNOWN)
    options = body.pop("stream_options", {})
    if conversation.stream:
        body["stream"] = True
        if conversation.wants_usage:
            options = options if isinstance(options, dict) else {}
            body["stream_options"] = {**options, "include_usage": True}
    unknown = tuple(name for name in said if name not in _KNOWN)
    return Rendered(with_extra(body, conversation.extra), unknown + _unsaid(conversation))


def _one_text(conversation: Conversation) -> str:
    """The prompt. Thoughts are no part of it. Raises FormatError for anything else than texts."""
    if conversation.tools or conversation.native_tools:
        raise FormatError("tools: a provider of completions takes none; use llm/v1/chat")
    for index, message in enumerate(conversation.messages):
        for block in message.blocks:
            if not isinstance(block, Text | Thinking | Refusal):
                raise FormatError(
                    f"messages[{index}]: a provider of completions takes only texts; "
                    "use llm/v1/chat"
                )
    return conversation.prompt


def _unsaid(conversation: Conversation) -> tuple[str, ...]:
    """What was asked for and has no member in this format."""
    asked = {
        "response_format": conversation.output,
        "reasoning_effort": conversation.reasoning,
        "tool_choice": conversation.tool_choice,
        "parallel_tool_calls": conversation.parallel_tool_calls,
        "cache_control": conversation.has_cache_points or None,
        "name": conversation.has_names or None,
    }
    return tuple(name for name, value in asked.items() if value is not None)


# ---- answers


def _render_answer(answer: Answer, context: Context) -> dict[str, object]:
    choices = answer.choices or (Choice(),)
    body: dict[str, object] = {
        "id": answer.id or f"cmpl-{context.id}",
        "object": "text_completion",
        "created": answer.created or context.now,
        "model": answer.model or context.model,
        "choices": [_choice(choice, index, context) for index, choice in enumerate(choices)],
    }
    if answer.usage is not None:
        body["usage"] = usage_object(answer.usage)
    return body


def _choice(choice: Choice, index: int, context: Context) -> dict[str, object]:
    offset = len(context.prefix)
    return {
        "text": context.prefix + _said(choice),
        "index": index,
        "logprobs": plain_logprobs(choice.logprobs, offset) if choice.logprobs else None,
        "finish_reason": _reason(choice.finish_reason),
    }


def _said(choice: Choice) -> str:
    return "".join(block.text for block in choice.said if isinstance(block, Text | Refusal))


def _reason(reason: str) -> str:
    """The format knows no calls."""
    return "stop" if reason == "tool_calls" else reason


class _Text:
    """One choice under way."""

    __slots__ = ("finished", "head", "length", "told")

    def __init__(self, beginning: bytes, number: int, length: int) -> None:
        self.head = beginning + b'[{"index":%d,"text":' % number
        self.length = length
        """Of the text so far, in characters."""
        self.told = length
        """Of the text whose log probabilities were told."""
        self.finished = False


class CompletionsWriter:
    """Writes one stream; see StreamWriter."""

    __slots__ = ("_choices", "_context", "_failed", "_head", "_rest", "_tail", "_usage")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._choices: dict[int, _Text] = {}
        self._usage: Usage | None = None
        self._failed = False
        self._rest = (b',"usage":null' if context.wants_usage else b"") + b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._rest
        self._head = b""
        self._started(Started(), [])

    def feed(self, deltas: list[Delta]) -> bytes:
        """See StreamWriter."""
        out: list[bytes] = []
        for delta in deltas:
            write = _WRITE.get(type(delta))
            if write is not None and not self._failed:
                write(self, delta, out)
        return b"".join(out)

    def end(self) -> bytes:
        """See StreamWriter."""
        if self._failed:
            return b""
        out: list[bytes] = []
        if not self._choices:
            self._choice(0, out)
        for number in self._choices:
            self._finished(Finished("stop", None, number), out)
        if self._context.wants_usage and self._usage is not None:
            out.append(usage_chunk(self._head, Used(self._usage)))
        out.append(DONE)
        return b"".join(out)

    def _started(self, delta: Started, _: list[bytes]) -> None:
        context = self._context
        if not self._choices:
            self._head = head(
                "text_completion",
                delta.id or f"cmpl-{context.id}",
                delta.created or context.now,
                delta.model or context.model,
            )

    def _choice(self, number: int, out: list[bytes]) -> _Text:
        """The choice; a new one begins with the prompt, where that is echoed."""
        choice = self._choices.get(number)
        if choice is None:
            prefix = self._context.prefix
            choice = self._choices[number] = _Text(self._head, number, len(prefix))
            if prefix:
                out.append(choice.head + _dumps(prefix) + self._tail)
        return choice

    def _text(self, delta: TextPiece | RefusalPiece, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if not choice.finished:
            choice.length += len(delta.text)
            out.append(choice.head + _dumps(delta.text) + self._tail)

    def _logprobs(self, delta: Logprobs, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if not choice.finished:
            told = _dumps(plain_logprobs(delta.content, choice.told))
            choice.told = choice.length
            end = b',"finish_reason":null}]' + self._rest
            out.append(choice.head + b'"","logprobs":' + told + end)

    def _finished(self, delta: Finished, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if not choice.finished:
            choice.finished = True
            reason = _dumps(_reason(delta.reason))
            end = b',"finish_reason":' + reason + b"}]" + self._rest
            out.append(choice.head + b'"","logprobs":null' + end)

    def _used(self, delta: Used, _: list[bytes]) -> None:
        self._usage = delta.usage

    def _fail(self, delta: Failed, out: list[bytes]) -> None:
        self._failed = True
        out.append(error_event(delta))


_WRITE: Mapping[type[Delta], Callable[[CompletionsWriter, Any, list[bytes]], None]] = {
    Started: CompletionsWriter._started,
    TextPiece: CompletionsWriter._text,
    RefusalPiece: CompletionsWriter._text,
    Logprobs: CompletionsWriter._logprobs,
    Finished: CompletionsWriter._finished,
    Used: CompletionsWriter._used,
    Failed: CompletionsWriter._fail,
}
