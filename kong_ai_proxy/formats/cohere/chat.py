"""Cohere's chat, API v2: https://docs.cohere.com/reference/chat.

A plan of tool calls (`tool_plan`) is read as text beside the calls: clients of other formats show
that and send it back with the calls, as Cohere wants it. In a request it is the plan again. Newer
models think instead, which is read as thoughts.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.cohere.common import (
    error_of,
    parse_error,
    render_error,
    usage_object,
)
from kong_ai_proxy.formats.cohere.request import parse, render
from kong_ai_proxy.formats.cohere.stream import (
    Reader,
    Writer,
    ending,
    finish_reason,
    logprob,
    logprob_item,
)
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Refusal,
    Rendered,
    Text,
    Thinking,
    ToolCall,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Failed,
    Logprobs,
    Started,
    TextPiece,
    ThinkingPiece,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import an_object, object_of, objects_of, text_of, wrong


class _Chat:
    name = "cohere/chat"
    stream_type = "text/event-stream"
    stream_types = frozenset({"text/event-stream"})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        return parse(body, model, stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        return render(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        answer = an_object(value, "answer")
        message = answer.get("message")
        if not isinstance(message, dict):
            if error := error_of(answer):
                return [Failed(error)]
            wrong("answer.message", "an object")
        calls = objects_of(message, "tool_calls")
        found: list[Delta] = [Started(text_of(answer, "id")), *_content(message)]
        for number, call in enumerate(calls):
            function = object_of(call, "function")
            found.append(CallStarted(number, text_of(call, "id"), text_of(function, "name")))
            found.append(CallArguments(number, text_of(function, "arguments")))
        if items := objects_of(answer, "logprobs"):
            found.append(Logprobs([logprob(item) for item in items]))
        reason = text_of(answer, "finish_reason")
        citations: list[object] = [*objects_of(message, "citations")]
        return found + ending(reason, bool(calls), "", answer, citations)

    def render_answer(self, answer: Answer, context: Context) -> object:
        choice = answer.choices[0] if answer.choices else Choice()
        message: dict[str, object] = {"role": "assistant", "content": _content_of(choice)}
        if choice.calls:
            message["tool_calls"] = [
                _call(call, number, context) for number, call in enumerate(choice.calls)
            ]
        logprobs = [logprob_item(entry) for entry in choice.logprobs]
        return {
            "id": answer.id or context.id,
            "message": message,
            "finish_reason": finish_reason(choice.finish_reason, choice.stop_sequence),
            **({"usage": usage_object(answer.usage)} if answer.usage else {}),
            **({"logprobs": logprobs} if logprobs else {}),
        }

    def reader(self) -> StreamReader:
        return Reader()

    def writer(self, context: Context) -> StreamWriter:
        return Writer(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return render_error(error)


def _content(message: Mapping[str, object]) -> list[Delta]:
    found: list[Delta] = []
    for block in objects_of(message, "content"):
        if thinking := text_of(block, "thinking"):
            found.append(ThinkingPiece(thinking))
        elif text := text_of(block, "text"):
            found.append(TextPiece(text))
    if plan := text_of(message, "tool_plan"):
        found.append(TextPiece(plan))
    return found


def _content_of(choice: Choice) -> list[object]:
    """Blocks as the writer of streams tells them: text and refusals in a row are one."""
    content: list[dict[str, object]] = []
    goes_on = False
    for block in choice.said:
        kind = "thinking" if isinstance(block, Thinking) else "text"
        match block:
            case ToolCall():
                goes_on = False
            case Media():
                raise FormatError(f"the answer has an {block.kind}, which Cohere's format has not")
            case Thinking(text) | Text(text=text) | Refusal(text=text):
                if not text:
                    continue
                if goes_on and content and content[-1]["type"] == kind:
                    content[-1][kind] = f"{content[-1][kind]}{text}"
                else:
                    content.append({"type": kind, kind: text})
                goes_on = True
    return [*content]


def _call(call: ToolCall, number: int, context: Context) -> dict[str, object]:
    return {
        "id": call.id or f"call_{context.id}_{number}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


CHAT: ChatCodec = _Chat()
