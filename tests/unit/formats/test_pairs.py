"""Conversations from every format into every other: what both can say survives, and what one of
them cannot say is refused or named, never lost. See pairs_formats for what each can say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.conversation import (
    BUDGETS,
    Block,
    Conversation,
    Media,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from tests.unit.formats import strategies
from tests.unit.formats.pairs_formats import (
    CLIENTS,
    FORMATS,
    Format,
    features,
    objects,
    offered,
    plain_schema,
    refused,
    squeezed,
    strings,
    told,
)

_PROMPTS = ("openai/completions", "cohere/generate", "huggingface/generate")
_NEUTRAL = {"echo": False, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""Settings that ask for what is so without them."""
_UNSAID = {
    "huggingface/generate": {"temperature": 0, "top_p": 1},
    "cohere/chat": {"top_p": 1},
    "cohere/generate": {"top_p": 1},
}
"""Settings that a format refuses because they are so without them, too, or has other words for."""


def _with_words(conversation: Conversation) -> Conversation:
    """Where every text says something, and what means nothing alone does not stand alone."""
    said = conversation.settings
    alone = ["top_logprobs"] if "logprobs" not in said else []
    messages = [
        replace(message, blocks=tuple(map(_with_word, message.blocks)))
        for message in conversation.messages
    ]
    return replace(conversation, messages=tuple(messages)).without(alone)


def _with_word(block: Block) -> Block:
    if isinstance(block, Text | Refusal) and not block.text.strip():
        return replace(block, text=f"{block.text}?")
    return block


def _as_prompt(conversation: Conversation) -> Conversation:
    text = next(block for block in conversation.turns[0].blocks if isinstance(block, Text))
    return replace(conversation, messages=(Message("user", (text,)),), is_completion=True)


def _of_clients(name: str) -> st.SearchStrategy[Conversation]:
    """What clients of the format can say."""
    said = FORMATS[name]
    found = strategies.conversations(**features(said)).map(_with_words)
    found = found.filter(lambda conversation: not refused(conversation, said))
    return found.map(_as_prompt) if name in _PROMPTS else found


def _asked(name: str, conversation: Conversation) -> Conversation:
    """The conversation once a client of the format has said it."""
    client = FORMATS[name].client
    assert client is not None
    body = orjson.loads(orjson.dumps(FORMATS[name].codec.render_request(conversation).body))
    return client.parse_request(body, model=conversation.model, stream=conversation.stream)


@pytest.mark.parametrize("name", CLIENTS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_conversation_survives_on_its_way_to_every_other_format(
    name: str, data: st.DataObject
) -> None:
    conversation = data.draw(_of_clients(name))
    asked = _asked(name, conversation)
    assert told(asked, FORMATS[name]) == told(conversation, FORMATS[name])
    for other, said in FORMATS.items():
        if other != name:
            _check(asked, other, said)


@pytest.mark.parametrize("name", FORMATS)
@given(conversation=strategies.conversations(assistant_media=True))
@settings(max_examples=15, deadline=None)
def test_whatever_was_said_is_rendered_refused_or_named(
    name: str, conversation: Conversation
) -> None:
    """Conversations with everything that any format has."""
    try:
        rendered = FORMATS[name].codec.render_request(conversation)
    except FormatError:
        return
    _check_words(conversation, rendered, name)
    _check_knobs(conversation, rendered, name)


def _check(asked: Conversation, name: str, said: Format) -> None:
    """That the format says all of it that it can say, and refuses or names the rest."""
    if refused(asked, said):
        with pytest.raises(FormatError):
            said.codec.render_request(asked)
        return
    rendered = said.codec.render_request(asked)
    body: Any = orjson.loads(orjson.dumps(rendered.body))
    _check_words(asked, rendered, name)
    _check_knobs(asked, rendered, name)
    if said.client is None:
        return
    again = said.client.parse_request(body, model=asked.model, stream=asked.stream)
    if not (said.result_media == "beside" and _has_result_media(asked)):
        assert told(again, said) == told(asked, said), name
    _check_settings(asked, again, rendered.dropped, name)
    _check_tools(asked, again, rendered.dropped, name)
    _check_output(asked, again, rendered.dropped, name)


def _has_result_media(conversation: Conversation) -> bool:
    results = (b for m in conversation.messages for b in m.blocks if isinstance(b, ToolResult))
    return any(isinstance(part, Media) for result in results for part in result.content)


# ---- nothing lost


def _check_words(asked: Conversation, rendered: Rendered, name: str) -> None:
    """Every text, call and result stands in the body."""
    found = list(strings(rendered.body))
    words = squeezed("\0".join(found)).replace("\0", "")
    said = list(objects(rendered.body))
    for block in _blocks(asked):
        if isinstance(block, Text | Refusal):
            assert squeezed(block.text) in words, (name, block)
        elif isinstance(block, ToolCall):
            assert block.name in found, (name, block)
            assert orjson.loads(block.arguments) in said, (name, block)
        elif isinstance(block, Media):
            assert any((m.data or m.url or m.file_id) in each for m in [block] for each in found)


def _blocks(asked: Conversation) -> Iterator[Block]:
    for message in asked.messages:
        for block in message.blocks:
            yield block
            if isinstance(block, ToolResult):
                yield from block.content


def _check_knobs(asked: Conversation, rendered: Rendered, name: str) -> None:
    """What has no place in the format is named."""
    said, dropped = FORMATS[name], rendered.dropped
    points = any(getattr(each, "cache", None) is not None for each in [*_blocks(asked)])
    if points and not said.cache:
        assert "cache_control" in dropped, name
    if any(message.name for message in asked.messages) and not said.names:
        assert "name" in dropped, name
    for knob, value in asked.settings.items():
        if knob not in said.settings and _NEUTRAL.get(knob) != value:
            assert knob in dropped, (name, knob)
    assert len(set(dropped)) == len(dropped), (name, dropped)


# ---- the rest of a request


def _check_settings(
    asked: Conversation, again: Conversation, dropped: tuple[str, ...], name: str
) -> None:
    unsaid = {**_NEUTRAL, **_UNSAID.get(name, {})}
    for knob, value in asked.settings.items():
        if knob in dropped or unsaid.get(knob) == value:
            continue
        assert again.settings.get(knob) == value, (name, knob)
    if "reasoning_effort" not in dropped:
        assert _thinks(again) == _thinks(asked), name


def _thinks(conversation: Conversation) -> bool:
    """Whether thinking is asked for: how much, formats say in words or in tokens."""
    asked = conversation.reasoning
    if asked is None:
        return False
    return bool(asked.budget if asked.effort is None else BUDGETS[asked.effort])


def _check_tools(
    asked: Conversation, again: Conversation, dropped: tuple[str, ...], name: str
) -> None:
    choice, tools = asked.tool_choice, asked.tools
    if choice and choice.mode == "tool" and again.tool_choice != choice:
        # Who has to call a tool, and has one, has to call that one.
        assert "tool_choice" in dropped or (again.tool_choice and len(again.tools) == 1), name
        tools = again.tools if "tool_choice" not in dropped else tools
        assert [tool.name for tool in again.tools] == [choice.name], name
        return
    if choice and choice.mode == "none" and not again.tools:
        return  # who is not to call anything needs no tools
    if tools:
        assert offered(again.tools) == offered(tools), name
    if choice and choice.mode != "auto" and "tool_choice" not in dropped:
        assert again.tool_choice == choice, name
    if tools and asked.parallel_tool_calls is False and "parallel_tool_calls" not in dropped:
        assert again.parallel_tool_calls is False or (choice and choice.mode == "none"), name


def _check_output(
    asked: Conversation, again: Conversation, dropped: tuple[str, ...], name: str
) -> None:
    if asked.output and "response_format" not in dropped:
        assert again.output is not None, name
        assert plain_schema(again.output.schema) == plain_schema(asked.output.schema), name


# ---- single cases that the random ones have found


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.turns == "text"])
def test_a_prompt_has_refusals_and_no_thoughts(name: str) -> None:
    said = (Thinking("Hm.", "AAAA"), Refusal("I will not."))
    messages = (Message("user", (Text("Do it."),)), Message("assistant", said))
    body = FORMATS[name].codec.render_request(Conversation(messages=messages)).body
    words = "".join(strings(body))
    assert "I will not." in words
    assert "Hm." not in words


def test_a_tools_error_is_marked_for_cohere() -> None:
    call, result = ToolCall("call_1", "look"), ToolResult("call_1", (Text("gone"),), is_error=True)
    messages = (Message("assistant", (call,)), Message("user", (result,)))
    body: Any = FORMATS["cohere/chat"].codec.render_request(Conversation(messages=messages)).body
    assert body["messages"][1]["content"] == "Error: gone"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "ollama/generate"])
def test_cache_points_and_names_are_named_where_a_format_has_none(name: str) -> None:
    talk = Conversation(messages=(Message("user", (Text("Hello.", ""),), "anna"),))
    dropped = FORMATS[name].codec.render_request(talk).dropped
    assert ("cache_control" in dropped) is not FORMATS[name].cache
    assert ("name" in dropped) is not FORMATS[name].names
