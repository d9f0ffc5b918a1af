"""Llama 2 behind a server that only continues text ("raw"), as a provider.

The prompt is Meta's chat template for Llama 2:
https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-2/. The page's line breaks
between turns are layout; the blank line after the system prompt is Meta's own code's.
The server takes {"inputs", "parameters"} as Hugging Face's servers do:
https://huggingface.co/docs/text-generation-inference/reference/api_reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

from kong_ai_proxy.formats.codec import ChatProvider
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
    with_extra,
)
from kong_ai_proxy.formats.deltas import Delta
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import wrong
from kong_ai_proxy.formats.huggingface import common as huggingface_common
from kong_ai_proxy.formats.llama2 import answers as answers

_PARAMETERS: Mapping[str, str] = {
    "max_tokens": "max_new_tokens",
    **{
        name: name
        for name in (
            "details",
            "do_sample",
            "frequency_penalty",
            "max_new_tokens",
            "repetition_penalty",
            "return_full_text",
            "seed",
            "stop",
            "temperature",
            "top_k",
            "top_p",
            "truncate",
            "typical_p",
            "watermark",
        )
    },
}
"""Settings that are members of `parameters`, and their names there."""

_MARKS = re.compile(r"\[(?=/?INST\])|<(?=/?s>|</?SYS>>)")
"""Where one of the template's marks begins: [INST], [/INST], <<SYS>>, <</SYS>>, <s> and </s>."""


class _Raw:
    name = "llama2/raw"
    stream_types = frozenset({"text/event-stream"})

    def render_request(self, conversation: Conversation) -> Rendered:
        """See ChatProvider. All turns, answers included, and all system texts as one. A prompt to
        be continued is put as a question, since the models that listen are the chat models.

        A mark of the template inside a text would forge a turn, or a system prompt; it gets a
        space after its first character. To refuse it would turn away whoever strikes text out in
        HTML.
        """
        dropped = _check(conversation)
        parameters = _parameters(conversation.settings)
        dropped |= conversation.settings.keys() - _PARAMETERS.keys() - {"echo", "parameters"}
        body: dict[str, object] = {
            "inputs": prompt(conversation),
            "parameters": parameters,
            "stream": conversation.stream,
        }
        return Rendered(with_extra(body, conversation.extra), tuple(sorted(dropped)))

    def parse_answer(self, value: object) -> list[Delta]:
        """See ChatProvider. What is before the last [/INST] is the prompt, repeated."""
        return answers.whole(value)

    def reader(self) -> answers.Reader:
        """See ChatProvider."""
        return answers.Reader()

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """See ChatProvider."""
        return huggingface_common.parse_error(status, body)


def prompt(conversation: Conversation) -> str:
    """Meta's template, filled in. It begins with a question and ends with one; where the last
    turn is the assistant's, with the beginning of the answer."""
    turns = [
        (role, "\n".join(text for message in messages for text in _texts(message.blocks)))
        for role, messages in groupby(_turns(conversation.messages), lambda turn: turn.role)
    ]
    if not turns or turns[0][0] == "assistant":
        turns.insert(0, ("user", ""))
    system = "\n\n".join(_unmarked(text.text) for text in conversation.system)
    if system:
        turns[0] = ("user", f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0][1]}")
    parts: list[str] = []
    for number, (role, text) in enumerate(turns):
        if role == "user":
            parts.append(f"<s>[INST] {text} [/INST]")
        else:
            parts.append(f" {text} </s>" if number + 1 < len(turns) else f" {text}")
    return "".join(parts)


def _turns(messages: Iterable[Message]) -> Iterator[Message]:
    return (message for message in messages if message.role != "system")


def _texts(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Text | Refusal):
            yield _unmarked(block.text)


def _unmarked(text: str) -> str:
    return _MARKS.sub(r"\g<0> ", text)


def _check(conversation: Conversation) -> set[str]:
    """Names of what is lost beside the settings. Raises FormatError for what must not be."""
    if conversation.tools or conversation.native_tools:
        wrong("tools", "none: a Llama 2 server that only continues text cannot call any")
    lost = {"name"} if conversation.has_names else set()
    if conversation.has_cache_points:
        lost.add("cache_control")
    for index, message in enumerate(conversation.messages):
        for number, block in enumerate(message.blocks):
            if isinstance(block, Thinking):
                lost.add("reasoning_content")
            elif not isinstance(block, Text | Refusal):
                wrong(
                    f"messages[{index}].content[{number}]", "text: a Llama 2 server takes no more"
                )
    if conversation.output:
        lost.add("response_format")
    if conversation.reasoning:
        lost.add("reasoning_effort")
    return lost


def _parameters(settings: Mapping[str, object]) -> dict[str, object]:
    """Their servers refuse a temperature of 0, which means not to sample, and a `top_p` of 1,
    which means nothing."""
    found = {_PARAMETERS[name]: value for name, value in settings.items() if name in _PARAMETERS}
    if found.get("temperature") == 0:
        del found["temperature"]
        found.setdefault("do_sample", False)
    if found.get("top_p") == 1:
        del found["top_p"]
    own = settings.get("parameters")
    return {**found, **own} if isinstance(own, dict) else found


RAW: Final[ChatProvider] = _Raw()
