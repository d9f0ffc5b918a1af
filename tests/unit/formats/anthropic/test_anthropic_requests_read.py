"""Requests of clients that speak Anthropic's Messages."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kong_ai_proxy.formats.anthropic import MESSAGES
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError

BODY = json.loads((Path(__file__).parent / "fixtures" / "request.json").read_text())["body"]
OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}


def parsed(**members: Any) -> Conversation:
    return MESSAGES.parse_request({"messages": [{"role": "user", "content": "Hi"}], **members})


def user(*blocks: dict[str, Any]) -> tuple[Any, ...]:
    return parsed(messages=[{"role": "user", "content": list(blocks)}]).messages[0].blocks


def test_the_whole_request_is_understood() -> None:
    assert MESSAGES.parse_request(BODY) == Conversation(
        messages=(
            Message("system", (Text("Be brief."), Text("Speak English.", "1h"))),
            Message(
                "user",
                (
                    Text("What is this?"),
                    Media(kind="image", data="iVBORw0KGgo=", media_type="image/png"),
                    Media(kind="image", url="https://example.com/a.png"),
                    Media(kind="image", file_id="file_1"),
                    Media(
                        kind="file",
                        data="JVBERi0xLjQ=",
                        media_type="application/pdf",
                        name="report.pdf",
                    ),
                    Media(kind="file", url="https://example.com/a.pdf", cache=""),
                ),
            ),
            Message(
                "assistant",
                (
                    Thinking("Hm.", "c2ln"),
                    Thinking("", redacted="AAAA"),
                    Text("I will look."),
                    ToolCall("toolu_1", "get_weather", '{"days":[],"at":{}}'),
                    ToolCall("toolu_2", "get_time", "{}"),
                ),
            ),
            Message(
                "user",
                (
                    ToolResult("toolu_2", (Text("12:00"),), cache=""),
                    ToolResult(
                        "toolu_1",
                        (Text("no"), Media(kind="image", url="https://example.com/b.png")),
                        is_error=True,
                    ),
                    Text("And now?"),
                ),
            ),
        ),
        model="claude-sonnet-4-5",
        stream=True,
        wants_usage=True,
        tools=(
            Tool(
                name="get_weather",
                description="The weather",
                parameters=BODY["tools"][0]["input_schema"],
                strict=True,
            ),
            Tool(name="get_time", parameters={"type": "object", "properties": {}}, cache=""),
        ),
        native_tools=(BODY["tools"][2],),
        tool_choice=ToolChoice("auto"),
        parallel_tool_calls=False,
        output=OutputFormat(schema=OBJECT),
        reasoning=Reasoning(budget=2048, visible=True),
        settings={
            "max_tokens": 20000,
            "inference_geo": "eu",
            "stop": ["END"],
            "user": "u-1",
            "service_tier": "default",
        },
    )


def test_null_counts_as_absent() -> None:
    nothing = dict.fromkeys(["system", "tools", "tool_choice", "thinking", "output_config"])
    more = dict.fromkeys(["metadata", "stop_sequences", "service_tier", "temperature", "container"])
    assert parsed(**nothing, **more, stream=None) == parsed()


def test_a_system_prompt_may_be_a_text_and_roles_may_be_shouted() -> None:
    messages = [{"role": "USER", "content": "Hi"}, {"role": "System", "content": "Now German."}]
    assert parsed(system="Be brief.", messages=messages).messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("Hi"),)),
        Message("system", (Text("Now German."),)),
    )


def test_the_path_may_say_model_and_stream() -> None:
    body = {"messages": [], "model": "a"}
    found = MESSAGES.parse_request(body, model="b", stream=True)
    assert (found.model, found.stream, found.wants_usage) == ("b", True, True)


def test_results_may_stand_anywhere_among_other_blocks() -> None:
    found = user(
        {"type": "text", "text": "One"},
        {"type": "tool_result", "tool_use_id": "a", "content": []},
        {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
        {"type": "tool_result", "tool_use_id": "b"},
    )
    assert found == (Text("One"), ToolResult("a"), Text("Two", "5m"), ToolResult("b"))


def test_documents_that_are_text_become_text() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "Once upon a time"}
    parts = [
        {"type": "text", "text": "One"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ]
    found = user(
        {"type": "document", "title": "Tale", "context": "old", "source": plain},
        {"type": "document", "source": {"type": "content", "content": parts}},
        {"type": "document", "source": {"type": "content", "content": "Two"}},
    )
    assert found == (
        Text("Tale"),
        Text("old"),
        Text("Once upon a time"),
        Text("One"),
        Media(kind="image", url="https://example.com/a.png"),
        Text("Two"),
    )


def test_search_results_become_text_also_in_results_of_tools() -> None:
    result = {
        "type": "search_result",
        "source": "https://example.com",
        "title": "Docs",
        "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
        "citations": {"enabled": True},
    }
    found = parsed(
        messages=[
            {
                "role": "user",
                "content": [
                    result,
                    {"type": "tool_result", "tool_use_id": "a", "content": [result]},
                ],
            }
        ]
    )
    text = Text("Docs\nhttps://example.com\nOne\nTwo")
    assert found.messages[0].blocks == (text, ToolResult("a", (text,)))
    assert found.settings == {"citations": True}


def test_hints_for_the_providers_own_tool_search_are_named() -> None:
    tool = {"name": "f", "input_schema": OBJECT, "defer_loading": True, "input_examples": []}
    assert parsed(tools=[tool]).settings == {"tools[].defer_loading": True}


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "tool", "name": "f"}, ToolChoice("tool", "f")),
    ],
)
def test_tool_choices(choice: dict[str, Any], meant: ToolChoice) -> None:
    found = parsed(tool_choice=choice)
    assert (found.tool_choice, found.parallel_tool_calls) == (meant, None)


@pytest.mark.parametrize(
    ("members", "meant"),
    [
        ({"thinking": {"type": "disabled"}}, Reasoning(effort="none")),
        ({"thinking": {"type": "adaptive"}}, Reasoning(budget=-1)),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            Reasoning(budget=-1, visible=False),
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            Reasoning(effort="low"),
        ),
        ({"output_config": {"effort": "max"}}, Reasoning(effort="xhigh")),
        ({"thinking": {"type": "between_tools"}}, Reasoning(budget=-1)),
    ],
)
def test_ways_to_think(members: dict[str, Any], meant: Reasoning) -> None:
    assert parsed(**members).reasoning == meant


def test_the_output_format_of_the_beta_is_known() -> None:
    form = {"type": "json_schema", "schema": OBJECT}
    assert parsed(output_format=form).output == OutputFormat(schema=OBJECT)


def test_what_is_not_known_stays_under_its_own_name() -> None:
    found = parsed(
        context_management={"edits": []},
        output_config={"task_budget": {"type": "tokens", "total": 9}},
        metadata={"team": "a"},
        anthropic_version="bedrock-2023-05-31",
        top_k=5,
    )
    assert found.settings == {
        "context_management": {"edits": []},
        "output_config": {"task_budget": {"type": "tokens", "total": 9}},
        "metadata": {"team": "a"},
        "top_k": 5,
    }


USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"messages": None}, "messages: expected an array"),
        ({"messages": [1]}, "messages[0]: expected an object"),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            "messages[0].role: expected user, assistant or system",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text: expected a string",
        ),
        (
            {"messages": [{"role": "user", "content": [USE]}]},
            "messages[0].content[0]: a block of type 'tool_use' of the user cannot be carried "
            "over; expected one of text, image, document, search_result, tool_result",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**USE, "input": []}]}]},
            "messages[0].content[0].input: expected an object",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "t",
                                "content": [{"type": "tool_reference", "tool_name": "f"}],
                            }
                        ],
                    }
                ]
            },
            "messages[0].content[0].content[0]: a block of type 'tool_reference' cannot be "
            "carried over; expected text, image, document or search_result",
        ),
        ({"system": [{"type": "image"}]}, "system[0].type: expected text"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type: expected auto, any, tool or none"),
        (
            {"thinking": {"type": "enabled"}},
            "thinking.budget_tokens: expected a number of tokens",
        ),
        (
            {"thinking": {"type": "deep"}},
            "thinking.type: expected enabled, adaptive, between_tools or disabled",
        ),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type: expected"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name: expected a string"),
        ({"stop_sequences": [1]}, "stop_sequences[0]: expected a string"),
    ],
)
def test_errors_say_where_and_what(members: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parsed(**members)
    assert str(caught.value).startswith(message)


def test_large_images_are_not_copied() -> None:
    data = base64.b64encode(bytes(1 << 20)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    assert user({"type": "image", "source": source})[0].data is data
