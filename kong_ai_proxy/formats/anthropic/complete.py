"""Anthropic's text completions, which came before Messages.

https://docs.anthropic.com/en/api/complete. A prompt is a conversation as one text, in which
`\\n\\nHuman:` and `\\n\\nAssistant:` begin the turns, and the last turn is the assistant's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
from kong_ai_proxy.formats.anthropic.answer import picture
from kong_ai_proxy.formats.anthropic.render import MAX_TOKENS
from kong_ai_proxy.formats.anthropic.writer import event
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Choice,
    Delta,
    Failed,
    Finished,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_array, object_of, text_of

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_READ = frozenset(
    {"max_tokens_to_sample", "metadata", "model", "prompt", "stop_sequences", "stream"}
)
_KNOBS = ("temperature", "top_k", "top_p")
_NEUTRAL: Mapping[str, object] = {"best_of": 1, "echo": False, "n": 1}


# --- requests ---


def parse_request(
    body: Mapping[str, object], *, model: str = "", stream: bool | None = None
) -> Conversation:
    """A client's request. Raises FormatError."""
    messages = tuple(_messages(a_text(body.get("prompt"), "prompt")))
    streams = body.get("stream") is True if stream is None else stream
    settings = {n: value for n, value in body.items() if n not in _READ and value is not None}
    if body.get("max_tokens_to_sample") is not None:
        settings["max_tokens"] = body["max_tokens_to_sample"]
    if body.get("stop_sequences"):
        stop = an_array(body["stop_sequences"], "stop_sequences")
        settings["stop"] = [a_text(text, f"stop_sequences[{i}]") for i, text in enumerate(stop)]
    user = object_of(body, "metadata").get("user_id")
    if user is not None:
        settings["user"] = a_text(user, "metadata.user_id")
    return Conversation(
        messages=messages,
        model=model or text_of(body, "model"),
        stream=streams,
        settings=settings,
        is_completion=[message.role for message in messages] == ["user"],
    )


def _messages(prompt: str) -> Iterator[Message]:
    """The turns of a prompt. What stands before the first one is the system prompt."""
    before, *turns = _TURN.split(prompt)
    if not turns:
        yield Message("user", (Text(prompt),))
        return
    if before.strip():
        yield Message("system", (Text(before.strip()),))
    for speaker, text in zip(turns[::2], turns[1::2], strict=True):
        if text.strip():
            yield Message("user" if speaker == "Human" else "assistant", (Text(text.strip()),))


def render_request(conversation: Conversation) -> Rendered:
    """A provider's request. Raises FormatError for anything but text."""
    if conversation.tools or conversation.native_tools:
        raise FormatError("tools: expected none, text completions of Anthropic do not know them")
    body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
    body |= {"prompt": _prompt(conversation), "max_tokens_to_sample": MAX_TOKENS}
    if conversation.stream:
        body["stream"] = True
    dropped = []
    for name, value in conversation.settings.items():
        if name == "max_tokens":
            body["max_tokens_to_sample"] = value
        elif name == "stop":
            body["stop_sequences"] = value
        elif name == "user":
            body["metadata"] = {"user_id": value}
        elif name in _KNOBS:
            body[name] = value
        elif name not in _NEUTRAL or value != _NEUTRAL[name]:
            dropped.append(name)
    unsaid = {
        "reasoning_effort": conversation.reasoning,
        "response_format": conversation.output,
        "tool_choice": conversation.tool_choice,
        "parallel_tool_calls": conversation.parallel_tool_calls,
        "cache_control": conversation.has_cache_points or None,
        "name": conversation.has_names or None,
    }
    dropped += [name for name, value in unsaid.items() if value is not None]
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        body["temperature"] = 1
        dropped.append("temperature")
    return Rendered({**body, **conversation.extra}, tuple(dropped))


def _prompt(conversation: Conversation) -> str:
    parts = [text.text for text in conversation.system]
    for index, message in enumerate(conversation.messages):
        if message.role != "system":
            text = _text(message, f"messages[{index}]")
            if conversation.is_completion and HUMAN in f"\n\n{text}" and ASSISTANT in text:
                return f"\n\n{text}"  # the client knows how to write a prompt
            parts.append(f"{HUMAN if message.role == 'user' else ASSISTANT} {text}")
    if conversation.messages[-1:] and conversation.messages[-1].role != "assistant":
        parts.append(ASSISTANT)
    prompt = "".join(parts)
    return prompt if prompt.startswith("\n") else f"\n\n{prompt}"


def _text(message: Message, where: str) -> str:
    texts = []
    for index, block in enumerate(message.blocks):
        if isinstance(block, Text | Refusal):
            texts.append(block.text)
        elif not isinstance(block, Thinking):
            raise FormatError(
                f"{where}.content[{index}]: expected text, which is all that text completions of "
                "Anthropic know"
            )
    return "\n\n".join(texts).strip()


# --- a provider's answers ---


def parse_answer(value: object) -> list[Delta]:
    """The pieces of a whole answer. Raises FormatError where it is none."""
    if isinstance(value, dict) and value.get("type") == "error":
        return [Failed(anthropic_errors.of_object(value))]
    if not isinstance(value, dict) or not isinstance(value.get("completion"), str):
        raise FormatError("'completion' is not a string in the answer")
    return [
        Started(text_of(value, "id"), text_of(value, "model")),
        TextPiece(text_of(value, "completion")),
        _finished(value),
    ]


def _finished(value: Mapping[str, object]) -> Finished:
    """The end of the turn is found by the sequence that begins the next one."""
    stop = value.get("stop")
    sequence = stop if isinstance(stop, str) and stop != HUMAN else None
    return Finished("length" if value.get("stop_reason") == "max_tokens" else "stop", sequence)


class Events:
    """Makes pieces of the parsed events of one stream; see anthropic_reader.Events."""

    def __init__(self) -> None:
        self.is_over = False
        self.is_started = False

    def read(self, event: Mapping[str, object]) -> list[Delta]:
        """The pieces in one event."""
        if self.is_over:
            return []
        if event.get("type") == "error":
            self.is_over = True
            return [Failed(anthropic_errors.of_object(event))]
        if event.get("type") != "completion":
            return []
        found: list[Delta] = []
        if not self.is_started:
            self.is_started = True
            found.append(Started(text_of(event, "id"), text_of(event, "model")))
        text = text_of(event, "completion")
        if text:
            found.append(TextPiece(text))
        if event.get("stop_reason") is not None:
            self.is_over = True
            found.append(_finished(event))
        return found

    def end(self) -> list[Delta]:
        """What the end of the stream leaves."""
        if self.is_over:
            return []
        self.is_over = True
        return [Failed(ProviderError("the provider's stream ended before its answer did"))]


# --- answers for clients ---


def render_answer(answer: Answer, context: Context) -> dict[str, object]:
    """A whole answer for a client. Of several alternatives the first: there is room for one."""
    choice = answer.choices[0] if answer.choices else Choice()
    texts = [
        picture(block) if isinstance(block, Media) else block.text
        for block in choice.said
        if isinstance(block, Text | Refusal | Media)
    ]
    end = Finished(choice.finish_reason, choice.stop_sequence)
    return _completion((answer.id, answer.model), context, "".join(texts), end)


def _completion(
    started: tuple[str, str], context: Context, text: str, end: Finished | None
) -> dict[str, object]:
    reason = stop = None
    if end is not None:
        reason = "max_tokens" if end.reason == "length" else "stop_sequence"
        stop = end.stop_sequence or (HUMAN if reason == "stop_sequence" else None)
    return {
        "type": "completion",
        "id": started[0] or f"compl_{context.id}",
        "completion": text,
        "stop_reason": reason,
        "stop": stop,
        "model": started[1] or context.model,
    }


class Writer:
    """Writes one stream. Only text can be said."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started = ("", "")
        self._end = Finished("stop")
        self._over = False

    def feed(self, deltas: list[Delta]) -> bytes:
        """The events that say `deltas`."""
        return b"".join(self._event(delta) for delta in deltas if not self._over)

    def end(self) -> bytes:
        """Why the answer ended."""
        if self._over:
            return b""
        self._over = True
        return event(_completion(self._started, self._context, "", self._end))

    def _event(self, delta: Delta) -> bytes:
        match delta:
            case Started(identity, model):
                self._started = (identity, model)
            case TextPiece(text, 0) | RefusalPiece(text, 0):
                return event(_completion(self._started, self._context, text, None))
            case MediaPiece(media, 0):
                return event(_completion(self._started, self._context, picture(media), None))
            case Finished(_, _, 0):
                self._end = delta
            case Failed(error):
                self._over = True
                return event(anthropic_errors.render(error))
        return b""
