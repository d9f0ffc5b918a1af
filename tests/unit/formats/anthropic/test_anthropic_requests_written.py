"""Requests to providers that speak Anthropic's Messages; its client's types judge them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParams
from hypothesis import given, settings
from pydantic import TypeAdapter

from kong_ai_proxy.formats.anthropic import MESSAGES
from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from tests.unit.formats.strategies import conversations

BODY = json.loads((Path(__file__).parent / "fixtures" / "request.json").read_text())["body"]
REQUESTS: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)
OLD, NEW = "claude-sonnet-4-5", "claude-opus-4-8"
ASKED = Conversation(messages=(Message("user", (Text("Hi"),)),), model=OLD)


def body(conversation: Conversation) -> dict[str, Any]:
    rendered: dict[str, Any] = MESSAGES.render_request(conversation).body
    REQUESTS.validate_python({"model": "m", **rendered})
    return rendered


def dropped(conversation: Conversation) -> tuple[str, ...]:
    body(conversation)
    return MESSAGES.render_request(conversation).dropped


def saying(*messages: tuple[str, tuple[Block, ...]]) -> Any:
    conversation = replace(
        ASKED,
        messages=tuple(Message(role, blocks) for role, blocks in messages),  # type: ignore[arg-type]
    )
    return body(conversation)["messages"]


def with_settings(**settings: object) -> Conversation:
    return replace(ASKED, settings=settings)


def test_the_whole_request_comes_out_as_it_went_in() -> None:
    expected = json.loads(json.dumps(BODY))
    expected["tools"][1].pop("type")
    rendered = MESSAGES.render_request(MESSAGES.parse_request(BODY))
    assert rendered.body == expected
    assert rendered.dropped == ()


def test_a_plain_question_is_as_short_as_can_be() -> None:
    asked = replace(ASKED, messages=(Message("system", (Text("Be brief."),)), *ASKED.messages))
    assert body(asked) == {
        "model": OLD,
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_all_system_messages_are_kept_in_order() -> None:
    messages = (
        Message("system", (Text("One"), Text("Two", ""))),
        Message("user", (Text("Hi"),)),
        Message("system", (Text("Three"),)),
    )
    assert body(replace(ASKED, messages=messages))["system"] == [
        {"type": "text", "text": "One"},
        {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Three"},
    ]


def test_a_system_prompt_alone_is_said_by_the_user() -> None:
    rendered = body(replace(ASKED, messages=(Message("system", (Text("Write a poem."),)),)))
    assert rendered["messages"] == [{"role": "user", "content": "Write a poem."}]
    assert "system" not in rendered


def test_neighbours_of_one_role_become_one_message() -> None:
    found = saying(
        ("user", (Text("One"),)),
        ("user", (Text("Two"),)),
        ("assistant", (Text("A"),)),
        ("assistant", (Text(" "),)),
        ("user", (Text(""),)),
        ("assistant", (Text("B"),)),
        ("user", (Text("Three"),)),
    )
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert found[1]["content"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]


def test_the_user_speaks_first() -> None:
    found = saying(("assistant", (Text("Welcome"),)), ("user", (Text("Hi"),)))
    assert [message["role"] for message in found] == ["user", "assistant", "user"]


def test_what_the_assistant_said_last_ends_without_space() -> None:
    found = saying(("user", (Text("Hi"),)), ("assistant", (Text("The answer is \n"),)))
    assert found[-1]["content"] == "The answer is"


def test_text_beside_calls_and_all_calls_survive() -> None:
    found = saying(
        ("user", (Text("Hi"),)),
        (
            "assistant",
            (Text("I look."), ToolCall("a.b:1", "f", '{"x":[]}'), ToolCall("c2", "g", "")),
        ),
        ("user", (ToolResult("c2", (Text("2"),)), ToolResult("a.b:1"))),
    )
    assert found[1]["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a_b_1", "name": "f", "input": {"x": []}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]
    assert found[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c2", "content": "2"},
        {"type": "tool_result", "tool_use_id": "a_b_1"},
    ]


def test_results_stand_before_everything_else_the_user_says() -> None:
    found = saying(
        ("user", (Text("Hi"),)),
        ("assistant", (ToolCall("a", "f"), ToolCall("b", "f"))),
        ("user", (Text("One"), ToolResult("b", (Text("2"),)))),
        ("user", (Media(kind="image", url="https://e.com/a"), ToolResult("a", is_error=True))),
    )
    assert [block["type"] for block in found[2]["content"]] == [
        "tool_result",
        "tool_result",
        "text",
        "image",
    ]


def test_thoughts_without_a_signature_are_left_out() -> None:
    found = saying(
        ("user", (Text("Hi"),)),
        (
            "assistant",
            (
                Thinking("unsigned"),
                Thinking("", "c2ln"),
                Thinking("", redacted="AAAA"),
                Text("A"),
            ),
        ),
        ("user", (Text("Go on"),)),
    )
    assert found[1]["content"] == [
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "AAAA"},
        {"type": "text", "text": "A"},
    ]


def test_a_refusal_is_what_the_assistant_said() -> None:
    found = saying(
        ("user", (Text("Hi"),)), ("assistant", (Refusal("No."),)), ("user", (Text("Why?"),))
    )
    assert found[1]["content"] == "No."


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media(kind="image", data="/9j/4AAQ", media_type="image/jpg"),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"},
            },
        ),
        (
            Media(kind="image", data="R0lGODlh"),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlh"},
            },
        ),
        (
            Media(kind="image", file_id="file_1"),
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            Media(kind="file", data="JVBERi0xLjQ=", name="a.pdf"),
            {
                "type": "document",
                "title": "a.pdf",
                "source": {
                    "type": "base64",
                    "media_type": "application/pdf",
                    "data": "JVBERi0xLjQ=",
                },
            },
        ),
        (
            Media(kind="file", data="R3LDvMOfZQ==", media_type="text/markdown"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            },
        ),
        (
            Media(kind="file", url="https://example.com/a.pdf", cache="1h"),
            {
                "type": "document",
                "source": {"type": "url", "url": "https://example.com/a.pdf"},
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            },
        ),
    ],
)
def test_images_and_documents(media: Media, block: dict[str, Any]) -> None:
    assert saying(("user", (media,)))[0]["content"] == [block]


@pytest.mark.parametrize(
    ("role", "block", "message"),
    [
        (
            "user",
            Media(kind="audio", data="AAAA"),
            "messages[0].content[0]: audio cannot be sent to models of this format",
        ),
        (
            "user",
            Media(kind="file", data="AAAA", media_type="application/zip"),
            "messages[0].content[0]: expected a PDF or a text, got application/zip",
        ),
        (
            "user",
            Media(kind="image", data="AAAA"),
            "messages[0].content[0]: expected an image with its media type, got none",
        ),
        (
            "user",
            Media(kind="image", url="gs://bucket/a.png"),
            "messages[0].content[0]: expected an https URL, which is all the provider fetches",
        ),
        (
            "user",
            Media(kind="file", data="AP8=", media_type="text/plain"),
            "messages[0].content[0]: expected base64 of a text in UTF-8",
        ),
        (
            "assistant",
            Media(kind="image", url="https://example.com/a.png"),
            "messages[0].content[0]: the assistant cannot have sent media in this format",
        ),
        (
            "assistant",
            ToolCall("a", "f", "[1]"),
            "messages[0].content[0].arguments: expected an object",
        ),
        ("user", Text(" \n"), "messages: expected at least one message that says something"),
    ],
)
def test_content_that_cannot_be_said_is_an_error(role: str, block: Block, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        saying((role, (block,)))
    assert str(caught.value) == message


def test_a_tool_without_parameters_has_a_schema() -> None:
    rendered = body(replace(ASKED, tools=(Tool(name="f"), Tool(name="g", parameters={}))))
    schema = {"type": "object", "properties": {}}
    assert rendered["tools"] == [
        {"name": "f", "input_schema": schema},
        {"name": "g", "input_schema": schema},
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "rendered"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (
            ToolChoice("tool", "f"),
            False,
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choices(
    choice: ToolChoice | None, parallel: bool | None, rendered: dict[str, Any] | None
) -> None:
    asked = replace(
        ASKED, tools=(Tool(name="f"),), tool_choice=choice, parallel_tool_calls=parallel
    )
    assert body(asked).get("tool_choice") == rendered


def test_a_choice_among_no_tools_is_dropped() -> None:
    asked = replace(ASKED, tool_choice=ToolChoice("auto"), parallel_tool_calls=False)
    assert dropped(asked) == ("tool_choice", "parallel_tool_calls")
    assert "tool_choice" not in body(asked)


@pytest.mark.parametrize("tool", [{"type": "web_search"}, {"googleSearch": {}}])
def test_tools_of_another_format_are_an_error(tool: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"^tools\[0\]: expected a function or one of Anthropic"):
        MESSAGES.render_request(replace(ASKED, native_tools=(tool,)))


def test_a_schema_for_the_answer_closes_its_objects() -> None:
    item = {"type": "object", "properties": {"type": {"type": "string"}}}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": item}}}
    asked = replace(ASKED, output=OutputFormat(schema=schema, name="x", strict=True))
    assert body(asked)["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "a": {"type": "array", "items": {**item, "additionalProperties": False}}
                },
                "additionalProperties": False,
            },
        }
    }
    assert "additionalProperties" not in schema


def test_a_very_deep_schema_is_passed_on() -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"items": schema}
    asked = replace(ASKED, output=OutputFormat(schema=schema))
    MESSAGES.render_request(asked)


@pytest.mark.parametrize(
    ("model", "output"),
    [(OLD, OutputFormat()), ("claude-3-5-sonnet-20241022", OutputFormat(schema={}))],
)
def test_json_that_cannot_be_asked_for_is_dropped(model: str, output: OutputFormat) -> None:
    asked = replace(ASKED, model=model, output=output)
    assert dropped(asked) == ("response_format",)
    assert "output_config" not in body(asked)


def test_settings_are_translated_and_the_others_named() -> None:
    asked = with_settings(
        max_tokens=9,
        top_k=5,
        stop=["END", "\n"],
        user="u",
        service_tier="default",
        seed=1,
        n=1,
        presence_penalty=0,
        frequency_penalty=0.5,
        metadata={"team": "a"},
        container="c",
    )
    assert body(asked) == {
        "model": OLD,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "container": "c",
    }
    assert dropped(asked) == ("stop", "seed", "frequency_penalty", "metadata")


def test_names_of_speakers_are_dropped_and_reported() -> None:
    asked = replace(ASKED, messages=(Message("user", (Text("Hi"),), "anna"),))
    assert dropped(asked) == ("name",)


@pytest.mark.parametrize(
    ("told", "sent", "names"),
    [(0.5, 0.5, ()), (1, 1, ()), (1.7, 1, ("temperature",)), (2, 1, ("temperature",))],
)
def test_temperature_is_capped_and_reported(
    told: float, sent: float, names: tuple[str, ...]
) -> None:
    asked = with_settings(temperature=told)
    assert body(asked)["temperature"] == sent
    assert dropped(asked) == names


def test_claude_4_takes_temperature_or_top_p() -> None:
    asked = with_settings(temperature=0.5, top_p=0.9)
    assert dropped(asked) == ("top_p",)
    assert "top_p" not in body(asked)
    assert dropped(replace(asked, model="claude-3-5-haiku-20241022")) == ()


def thinking(model: str, reasoning: Reasoning, **settings: object) -> dict[str, Any]:
    asked = replace(ASKED, model=model, reasoning=reasoning, settings=settings)
    rendered = body(asked)
    names = ("thinking", "output_config", "max_tokens")
    return {name: rendered[name] for name in names if name in rendered}


def test_older_models_take_a_budget_and_room_for_it() -> None:
    assert thinking(OLD, Reasoning(effort="medium")) == {
        "thinking": {"type": "enabled", "budget_tokens": 8192},
        "max_tokens": 4096 + 8192,
    }
    assert thinking(OLD, Reasoning(budget=10, visible=True), max_tokens=5000) == {
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
        "max_tokens": 5000,
    }


def test_a_budget_leaves_room_for_the_answer() -> None:
    found = thinking(OLD, Reasoning(effort="high"), max_tokens=4000)
    assert found["thinking"]["budget_tokens"] == 2000
    assert thinking(OLD, Reasoning(effort="high"), max_tokens=1024) == {"max_tokens": 1024}


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        (NEW, "minimal", "low"),
        (NEW, "high", "high"),
        (NEW, "xhigh", "xhigh"),
        ("claude-sonnet-4-6", "xhigh", "max"),
        ("us.anthropic.claude-opus-4-7-v1", "medium", "medium"),
    ],
)
def test_newer_models_take_an_effort(model: str, effort: str, sent: str) -> None:
    found = thinking(model, Reasoning(effort=effort), max_tokens=9)
    assert found == {
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": sent},
        "max_tokens": 9,
    }


def test_an_effort_stands_beside_a_schema() -> None:
    asked = replace(
        ASKED, model=NEW, reasoning=Reasoning(budget=9000), output=OutputFormat(schema={})
    )
    assert body(asked)["output_config"]["effort"] == "medium"
    assert body(asked)["output_config"]["format"]["type"] == "json_schema"


def test_as_much_as_the_model_likes_is_no_effort() -> None:
    assert thinking(NEW, Reasoning(budget=-1, visible=False)) == {
        "thinking": {"type": "adaptive", "display": "omitted"},
        "max_tokens": 4096,
    }


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        (NEW, {"thinking": {"type": "disabled"}, "max_tokens": 4096}),
        (OLD, {"max_tokens": 4096}),
        ("claude-fable-5", {"max_tokens": 4096}),
        ("deepseek-chat", {"thinking": {"type": "disabled"}, "max_tokens": 4096}),
    ],
)
def test_not_to_think(model: str, sent: dict[str, Any]) -> None:
    for reasoning in (Reasoning(effort="none"), Reasoning(budget=0)):
        assert thinking(model, reasoning) == sent


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, model="claude-fable-5", reasoning=Reasoning(effort="none")),
        replace(ASKED, model="claude-3-5-haiku-20241022", reasoning=Reasoning(effort="high")),
        replace(ASKED, reasoning=Reasoning(effort="high"), settings={"max_tokens": 100}),
        replace(ASKED, reasoning=Reasoning(effort="unheard of")),
        replace(
            ASKED,
            reasoning=Reasoning(effort="high"),
            tools=(Tool(name="f"),),
            tool_choice=ToolChoice("required"),
        ),
        replace(
            ASKED,
            reasoning=Reasoning(effort="high"),
            messages=(
                *ASKED.messages,
                Message("assistant", (Text("I look."), ToolCall("a", "f"))),
                Message("user", (ToolResult("a"),)),
            ),
        ),
        replace(
            ASKED,
            reasoning=Reasoning(effort="high"),
            messages=(*ASKED.messages, Message("assistant", (Text("It is"),))),
        ),
    ],
)
def test_reasoning_that_cannot_be_had_is_dropped(asked: Conversation) -> None:
    assert dropped(asked) == ("reasoning_effort",)
    assert "thinking" not in body(asked)


def test_a_turn_that_begins_with_its_thoughts_goes_on_thinking() -> None:
    turn = (Thinking("Hm.", "c2ln"), ToolCall("a", "f"))
    messages = (
        *ASKED.messages,
        Message("assistant", turn),
        Message("user", (ToolResult("a"), Text("Go on"))),
    )
    asked = replace(ASKED, reasoning=Reasoning(effort="low"), messages=messages)
    assert body(asked)["thinking"]["type"] == "enabled"


def test_sampling_does_not_go_with_thinking() -> None:
    settings = {"temperature": 0.3, "top_k": 5, "top_p": 0.5}
    asked = replace(ASKED, reasoning=Reasoning(effort="low"), settings=settings)
    assert set(dropped(asked)) == {"temperature", "top_k", "top_p"}
    assert not settings.keys() & body(asked).keys()
    fitting = replace(asked, settings={"temperature": 1})
    assert dropped(fitting) == ()


def test_extra_members_are_merged_in_last() -> None:
    asked = replace(
        ASKED,
        output=OutputFormat(schema={}),
        extra={"max_tokens": 1, "output_config": {"task_budget": {}}, "new": True},
    )
    rendered = MESSAGES.render_request(asked).body
    assert (rendered["max_tokens"], rendered["new"]) == (1, True)
    assert rendered["output_config"] == {
        "format": {"type": "json_schema", "schema": {}},
        "task_budget": {},
    }


SPOKEN = {
    "names": False,
    "late_systems": False,
    "alternating": True,
    "media_kinds": ("image", "file"),
    "media_details": False,
    "unsigned": False,
    "refusals": False,
    "call_signatures": False,
    "strict": False,
    "outputs": (),
    "efforts": (),
    "budgets": (),
    "settings": ("max_tokens", "top_k", "user"),
}


@settings(max_examples=20)
@given(conversations(**SPOKEN))
def test_what_the_format_can_say_survives(conversation: Conversation) -> None:
    rendered = MESSAGES.render_request(conversation)
    REQUESTS.validate_python(rendered.body)
    again = MESSAGES.parse_request(rendered.body)
    assert _comparable(again) == _comparable(conversation)
    assert rendered.dropped == ()


def _comparable(conversation: Conversation) -> Conversation:
    """Without what makes no difference: texts without a word, where results stand in their
    message, what is the default of calls, and the limit that a request must have."""
    choice = conversation.tool_choice or ToolChoice("auto")
    parallel = conversation.parallel_tool_calls
    messages = []
    systems = tuple(text for text in conversation.system if text.text.strip())
    if systems:
        messages.append(Message("system", systems))
    messages += [
        Message(message.role, tuple(sorted(blocks, key=_after_results)))
        for message in conversation.turns
        if (blocks := [block for block in map(_trimmed, message.blocks) if block])
    ]
    return replace(
        conversation,
        messages=tuple(messages),
        wants_usage=False,
        tools=tuple(
            replace(tool, parameters=tool.parameters or {"type": "object", "properties": {}})
            for tool in conversation.tools
        ),
        tool_choice=choice,
        parallel_tool_calls=False if parallel is False and choice.mode != "none" else None,
        settings={"max_tokens": 4096, **conversation.settings},
    )


def _after_results(block: Block) -> bool:
    return not isinstance(block, ToolResult)


def _trimmed(block: Block) -> Block | None:
    if isinstance(block, Text):
        return block if block.text.strip() else None
    if isinstance(block, ToolResult):
        kept = (part for part in block.content if _trimmed(part))
        return replace(block, content=tuple(kept))
    return block
