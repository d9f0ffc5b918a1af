"""Chat completions, answers in one piece.

https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import Answer, Choice, Delta, Said
from kong_ai_proxy.formats.openai.answers import (
    call_id,
    chat_logprobs,
    image_part,
    usage_object,
)
from kong_ai_proxy.formats.openai.chat_pieces import MessageReader, read_answer

THOUGHT, THOUGHT_END = "<thought>", "</thought>"
"""What stands around thoughts that are part of the text."""


def parse_answer(value: object) -> list[Delta]:
    """See ChatProvider."""
    return read_answer(value, MessageReader, openai.CHAT)


def render_answer(answer: Answer, context: Context) -> dict[str, object]:
    """See ChatClient. An answer without a choice gets an empty one."""
    choices = answer.choices or (Choice(),)
    body: dict[str, object] = {
        "id": answer.id or f"chatcmpl-{context.id}",
        "object": "chat.completion",
        "created": answer.created or context.now,
        "model": answer.model or context.model,
        "choices": [_choice(choice, index, context) for index, choice in enumerate(choices)],
    }
    if answer.usage is not None:
        body["usage"] = usage_object(answer.usage)
    return {**answer.extra, **body}


def _choice(choice: Choice, index: int, context: Context) -> dict[str, object]:
    return {
        "index": index,
        "message": _message(choice, index, context),
        "logprobs": chat_logprobs(choice.logprobs) if choice.logprobs else None,
        "finish_reason": choice.finish_reason,
    }


def _message(choice: Choice, index: int, context: Context) -> dict[str, object]:
    text = _tagged(choice) if context.thought_tags else choice.text
    message: dict[str, object] = {
        "role": "assistant",
        "content": text or (None if choice.said else ""),
        "refusal": choice.refusal or None,
    }
    if choice.thinking and not context.thought_tags:
        message["reasoning_content"] = choice.thinking
    thoughts = [block for block in choice.said if isinstance(block, Thinking)]
    blocks = [thinking_block(each) for each in thoughts if each.signature or each.redacted]
    if blocks:
        message["thinking_blocks"] = blocks
    media = [block for block in choice.said if isinstance(block, Media)]
    if media:
        message["images"] = [image_part(each) for each in media]
    if choice.calls:
        message["tool_calls"] = [
            _call(call, call.id or call_id(context, index, number))
            for number, call in enumerate(choice.calls)
        ]
    return message


def _tagged(choice: Choice) -> str:
    """The text with the thoughts in it; thoughts next to each other have one pair of tags."""
    parts: list[str] = []
    is_open = False
    for block in choice.said:
        is_thought = isinstance(block, Thinking)
        if is_thought != is_open and not _is_silent(block):
            parts.append(THOUGHT if is_thought else THOUGHT_END)
            is_open = is_thought
        if isinstance(block, Text | Thinking):
            parts.append(block.text)
    return "".join([*parts, THOUGHT_END] if is_open else parts)


def _is_silent(block: Said) -> bool:
    """A thought that cannot be read."""
    return isinstance(block, Thinking) and not block.text


def thinking_block(block: Thinking) -> dict[str, object]:
    """A thought with what proves it, as clients of this format keep those."""
    if block.redacted:
        return {"type": "redacted_thinking", "data": block.redacted}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _call(call: ToolCall, identity: str) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return call_object(identity, function, call.signature)


def call_object(identity: str, function: Mapping[str, object], signature: str) -> dict[str, object]:
    """A tool call with Google's signature, where there is one."""
    call: dict[str, object] = {"id": identity, "type": "function", "function": function}
    if signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call
