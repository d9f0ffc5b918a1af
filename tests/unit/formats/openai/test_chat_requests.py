"""Requests of chat completions, from clients and to providers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from kong_ai_proxy.formats.conversation import (
    Block,
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Rendered,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai.chat import CHAT
from tests.unit.formats import strategies
from tests.unit.formats.openai import sdk

FIXTURES = json.loads((Path(__file__).parent / "fixtures/requests.json").read_text())
HELLO = {"role": "user", "content": "Hello"}
IMAGE = Media(kind="image", data="AAAA", media_type="image/png")
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def parsed(*messages: Any, **more: Any) -> Conversation:
    return CHAT.parse_request({"messages": [*messages] or [HELLO], **more})


def blocks(message: dict[str, Any]) -> tuple[Block, ...]:
    (found,) = parsed(message).messages
    return found.blocks


def rendered(*messages: Message, **more: Any) -> Rendered:
    return CHAT.render_request(Conversation(messages=messages, **more))


def sent(*messages: Message, **more: Any) -> list[dict[str, Any]]:
    found: Any = rendered(*messages, **more).body["messages"]
    return list(found)


# ---- what the format says itself


@pytest.mark.parametrize("name", FIXTURES)
def test_a_request_in_the_format_survives(name: str) -> None:
    body = FIXTURES[name]["body"]
    found = CHAT.render_request(CHAT.parse_request(body))
    assert found == Rendered(body)
    sdk.check_chat_request(found.body)


COMMON = {
    "cache": False,
    "thinking": False,
    "call_signatures": False,
    "result_media": False,
    "result_errors": False,
    "budgets": (),
}


@given(
    strategies.conversations(
        **COMMON,
        free_order=False,
        several_texts=False,
        several_results_texts=False,
        mixed_results=False,
        media_urls=False,
        media_files=False,
        media_kinds=("image", "audio", "file"),
    )
)
def test_what_the_format_can_say_survives(conversation: Conversation) -> None:
    found = CHAT.render_request(conversation)
    assert found.dropped == ()
    again = CHAT.parse_request(found.body)
    assert strategies.normal(again) == strategies.normal(conversation)


@given(strategies.conversations(media_kinds=("image",), media_files=False))
def test_whatever_is_sent_is_openais(conversation: Conversation) -> None:
    found = CHAT.render_request(conversation)
    sdk.check_chat_request(found.body)
    _check_pairs(found.body)


def _check_pairs(body: dict[str, Any]) -> None:
    """Each call is answered, right behind the message in which it was made."""
    due: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            due.remove(message["tool_call_id"])
            continue
        assert not due
        due = {call["id"] for call in message.get("tool_calls", ())}
    assert not due


# ---- messages of clients


@pytest.mark.parametrize("role", ["system", "developer", "System", "DEVELOPER"])
def test_system_messages_are_all_kept_in_order(role: str) -> None:
    said = parsed(
        {"role": role, "content": "one"},
        HELLO,
        {"role": role, "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "3"}]},
    )
    assert said.system == (Text("one"), Text("two"), Text("3"))
    assert [message.role for message in said.messages] == ["system", "user", "system"]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, Text("a", "")),
        (
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            Text("a", "1h"),
        ),
        ({**IMAGE_PART, "cache_control": {"type": "ephemeral"}}, replace(IMAGE, cache="")),
        (
            {"type": "image_url", "image_url": "https://example.com/a.png"},
            Media(kind="image", url="https://example.com/a.png"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "gs://b/a.png", "detail": None}},
            Media(kind="image", url="gs://b/a.png"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
            Media(kind="audio", data="AA==", media_type="audio/mp3"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "data:;base64,AA==", "format": "ogg"}},
            Media(kind="audio", data="AA==", media_type="audio/ogg"),
        ),
        (
            {"type": "file", "file": {"file_id": "file-1", "filename": None}},
            Media(kind="file", file_id="file-1"),
        ),
        ({"type": "file", "file": {"file_data": "AA=="}}, Media(kind="file", data="AA==")),
        (
            {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
            Media(kind="video", url="https://example.com/a.mp4"),
        ),
    ],
)
def test_parts_are_read(part: dict[str, Any], block: Block) -> None:
    assert blocks({"role": "user", "content": [part]}) == (block,)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None, "reasoning_content": "Hm."}, (Thinking("Hm."),)),
        ({"content": "a", "reasoning": "Hm."}, (Thinking("Hm."), Text("a"))),
        (
            {
                "content": "a",
                "reasoning_content": "Hm.",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "b3A="},
                ],
            },
            (Thinking("Hm.", "c2ln"), Thinking("", redacted="b3A="), Text("a")),
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "a"},
                ]
            },
            (Thinking("Hm."), Text("a")),
        ),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, (Refusal("No."),)),
        ({"content": "", "refusal": "No."}, (Refusal("No."),)),
        ({"content": "a", "images": [IMAGE_PART]}, (Text("a"), IMAGE)),
        ({"content": ""}, ()),
        ({}, ()),
    ],
)
def test_messages_of_the_assistant_are_read(
    message: dict[str, Any], expected: tuple[Block, ...]
) -> None:
    assert blocks({"role": "assistant", **message}) == expected


def test_a_call_keeps_googles_signature_and_its_cache_point() -> None:
    call = {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "cache_control": {"type": "ephemeral"},
    }
    assert blocks({"role": "assistant", "tool_calls": [call]}) == (
        ToolCall("a", "f", "{}", "c2ln", ""),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("21", (Text("21"),)),
        ("", ()),
        (None, ()),
        ([], ()),
        ([{"type": "text", "text": "a"}, IMAGE_PART], (Text("a"), IMAGE)),
    ],
)
def test_results_of_tools_are_read(content: object, expected: tuple[Block, ...]) -> None:
    message = {"role": "tool", "tool_call_id": "a", "name": "f", "content": content}
    (found,) = parsed(message).messages
    assert found == Message("user", (ToolResult("a", expected, "f"),))  # type: ignore[arg-type]


def test_functions_of_the_legacy_format_are_tools() -> None:
    said = parsed(
        HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    call, result = said.messages[1].blocks[0], said.messages[2].blocks[0]
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert call.id == result.call_id != ""
    assert said.tools == (Tool(name="f", parameters={"type": "object"}),)
    assert said.tool_choice == ToolChoice("tool", "f")


@pytest.mark.parametrize("content", ["a", [{"type": "text", "text": "a"}]])
def test_a_messages_cache_point_is_at_its_last_block(content: object) -> None:
    message = {"role": "user", "content": content, "cache_control": {"type": "ephemeral"}}
    assert blocks(message) == (Text("a", ""),)


def test_tools_have_cache_points_and_other_tools_stay_as_they_are() -> None:
    said = parsed(
        tools=[
            {"type": "function", "function": {"name": "f"}, "cache_control": {"ttl": "1h"}},
            {"googleSearch": {}},
            {"type": "web_search"},
        ]
    )
    assert said.tools == (Tool(name="f", cache="1h"),)
    assert said.native_tools == ({"googleSearch": {}}, {"type": "web_search"})


# ---- the rest of a client's request


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", "f")),
        (None, None),
    ],
)
def test_tool_choices_are_read(choice: object, expected: ToolChoice | None) -> None:
    assert parsed(tool_choice=choice).tool_choice == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat()),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, OutputFormat(schema={}, name="a")),
    ],
)
def test_response_formats_are_read(asked: object, expected: OutputFormat | None) -> None:
    assert parsed(response_format=asked).output == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"reasoning_effort": "High"}, Reasoning(effort="high")),
        ({"reasoning_effort": "max"}, Reasoning(effort="xhigh")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(budget=2048)),
        ({"thinking": {"type": "enabled"}}, Reasoning(budget=-1)),
        ({"thinking": {"type": "disabled"}}, Reasoning(budget=0)),
        ({"reasoning": {"effort": "low"}}, Reasoning(effort="low")),
        ({"reasoning": {"max_tokens": 100}}, Reasoning(budget=100)),
        ({"reasoning": {"enabled": False}}, Reasoning(budget=0)),
        (
            {"reasoning": {"effort": "low", "exclude": True}},
            Reasoning(effort="low", visible=False),
        ),
        ({"reasoning_effort": None}, None),
        ({"reasoning": {}}, None),
    ],
)
def test_reasoning_is_read(asked: dict[str, Any], expected: Reasoning | None) -> None:
    said = parsed(**asked)
    assert said.reasoning == expected
    assert said.settings == {}


def test_settings_have_the_hubs_names_and_null_is_absent() -> None:
    said = parsed(
        max_tokens=5,
        max_completion_tokens=7,
        stop="END",
        temperature=None,
        safetySettings=[],
        stream_options={"include_usage": True, "include_obfuscation": False},
        extra_body={"a": 1},
    )
    assert said.settings == {
        "max_tokens": 7,
        "stop": ["END"],
        "safetySettings": [],
        "stream_options": {"include_obfuscation": False},
    }
    assert said.wants_usage
    assert said.extra == {"a": 1}


def test_the_path_names_model_and_stream() -> None:
    body = {"messages": [HELLO], "model": "a", "stream": True}
    said = CHAT.parse_request(body, model="b", stream=False)
    assert (said.model, said.stream) == ("b", False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "messages: expected a non-empty array"),
        ({"messages": []}, "messages: expected a non-empty array"),
        ({"messages": ["a"]}, "messages[0]: expected an object"),
        ({"messages": [{"content": "a"}]}, "messages[0].role: expected one of system, developer"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: expected a string or an array"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content: expected a string"),
        (
            {"messages": [{"role": "system", "content": [IMAGE_PART]}]},
            "messages[0].content[0]: expected a part of type text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            "messages[0].content[0].type: expected a part of type text, image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]: message part type is 'text' but is missing .text block",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]: message part type is 'image_url' "
            "but is missing .image_url.url block",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url",
                                                        "image_url": {"url": "data:x"}}]}]},
            "messages[0].content[0].image_url.url: a data URL has to be",
        ),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "messages[0].tool_call_id: expected a string",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]},
            'messages[0].tool_calls[0].type: expected "function"',
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages[0].tool_calls[0].function: expected an object",
        ),
        ({"messages": [HELLO], "tools": [{"type": "function"}]}, "tools[0].function: expected an"),
        ({"messages": [HELLO], "tools": {}}, "tools: expected an array"),
        ({"messages": [HELLO], "tool_choice": "x"}, 'tool_choice: expected one of "auto"'),
        ({"messages": [HELLO], "response_format": {"type": "x"}}, "response_format.type: expected"),
        ({"messages": [HELLO], "reasoning_effort": 3}, "reasoning_effort: expected none, minimal"),
        ({"messages": [HELLO], "parallel_tool_calls": 1}, "parallel_tool_calls: expected true"),
        ({"messages": [HELLO], "model": 1}, "expected 'model' to be a string"),
        ({"messages": [HELLO], "extra_body": 1}, "extra_body: expected an object"),
    ],
)  # fmt: skip
def test_a_bad_request_says_where_and_what(body: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError) as raised:
        CHAT.parse_request(body)
    assert str(raised.value).startswith(message)


# ---- what the format has no member for


def test_texts_of_one_message_are_one_string() -> None:
    (message,) = sent(Message("user", (Text("a"), Text("b"))))
    assert message == {"role": "user", "content": "a\n\nb"}


def test_texts_of_the_assistant_are_one_text_unless_something_parts_them() -> None:
    said = (Text("It is "), Text("21"), ToolCall("a", "f"), Text("Wait."))
    (message,) = sent(Message("assistant", said))
    assert message["content"] == "It is 21\n\nWait."


def test_calls_of_neighbouring_messages_are_made_together() -> None:
    messages = sent(
        Message("assistant", (Text("a"),)),
        Message("assistant", (ToolCall("1", "f"),)),
        Message("assistant", (ToolCall("2", "f"),)),
    )
    (message,) = messages
    assert [call["id"] for call in message["tool_calls"]] == ["1", "2"]


def test_results_come_right_behind_their_calls() -> None:
    messages = sent(
        Message("assistant", (ToolCall("1", "f"), ToolCall("2", "f"))),
        Message("user", (Text("so"), ToolResult("1", (Text("a"), IMAGE)))),
        Message("user", (ToolResult("2", (Text("b"),)), Text("go on"))),
    )
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user"]


def test_images_of_a_result_follow_in_a_message_of_the_user() -> None:
    result, user = sent(Message("user", (ToolResult("1", (Text("a"), IMAGE)), Text("Well?"))))
    assert result["content"] == "a\n\n(with files, in the next message)"
    assert user == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Files of the tool result 1:"},
            IMAGE_PART,
            {"type": "text", "text": "Well?"},
        ],
    }


@pytest.mark.parametrize(
    ("content", "text"), [((Text("no disk"),), "Error: no disk"), ((), "Error:")]
)
def test_a_result_that_is_an_error_says_so(content: tuple[Text, ...], text: str) -> None:
    (message,) = sent(Message("user", (ToolResult("1", content, is_error=True),)))
    assert message["content"] == text


def test_unsigned_thoughts_go_back_in_turns_with_calls_only() -> None:
    thought = Thinking("Hm.")
    messages = sent(
        Message("user", (Text("a"),)),
        Message("assistant", (thought, Text("b"))),
        Message("user", (Text("c"),)),
        Message("assistant", (thought, ToolCall("1", "f"))),
        Message("user", (ToolResult("1"),)),
        Message("assistant", (thought, Text("d"))),
        Message("user", (Text("e"),)),
    )
    has = [message.get("reasoning_content") for message in messages]
    assert has == [None, None, None, "Hm.", None, "Hm.", None]


def test_thoughts_that_others_signed_stay_out() -> None:
    said = (Thinking("Hm.", "c2ln"), Thinking("", redacted="b3A="), ToolCall("1", "f"))
    (message,) = sent(Message("assistant", said))
    assert message.keys() == {"role", "content", "tool_calls"}


def test_a_message_with_nothing_left_is_left_out() -> None:
    messages = sent(Message("assistant", (Thinking("Hm.", "c2ln"),)), Message("system", ()))
    assert messages == []


def test_cache_points_are_left_out_and_named() -> None:
    found = rendered(Message("user", (Text("a", ""),)))
    assert found == Rendered({"messages": [{"role": "user", "content": "a"}]}, ("cache_control",))
    assert rendered(tools=(Tool(name="f", cache=""),)).dropped == ("cache_control",)


def test_settings_of_other_formats_are_dropped_and_named() -> None:
    found = rendered(settings={"safetySettings": [], "temperature": 1, "echo": True})
    assert found.body == {"messages": [], "temperature": 1}
    assert found.dropped == ("safetySettings", "echo")


def test_nothing_is_said_about_tools_where_there_are_none() -> None:
    found = rendered(tool_choice=ToolChoice("auto"), parallel_tool_calls=True)
    assert found.body == {"messages": []}


@pytest.mark.parametrize(("budget", "effort"), [(0, "none"), (2048, "low"), (30_000, "high")])
def test_a_budget_of_thoughts_is_an_effort(budget: int, effort: str) -> None:
    found = rendered(reasoning=Reasoning(budget=budget))
    assert found.body["reasoning_effort"] == effort


def test_a_schema_without_a_name_gets_one() -> None:
    body = rendered(output=OutputFormat(schema={})).body
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "response", "schema": {}},
    }


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            Media(kind="image", file_id="f"),
            "messages[0].content[0]: expected the image itself or its URL",
        ),
        (
            Media(kind="file", url="https://example.com/a.pdf"),
            "messages[0].content[0]: expected the file itself",
        ),
        (Media(kind="audio", data="AA=="), "messages[0].content[0]: expected audio whose media"),
    ],
)
def test_content_that_cannot_be_said_is_refused(block: Media, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        rendered(Message("user", (block,)))
    assert str(raised.value).startswith(message)


def test_an_image_that_the_assistant_made_is_refused() -> None:
    with pytest.raises(FormatError, match="takes no image in a message of the assistant"):
        rendered(Message("assistant", (IMAGE,)))


def test_tools_of_another_format_are_refused() -> None:
    with pytest.raises(FormatError, match="tools: 'googleSearch' is no function"):
        rendered(native_tools=({"googleSearch": {}},))


def test_custom_tools_are_openais_own() -> None:
    tool = {"type": "custom", "custom": {"name": "sql"}}
    assert rendered(native_tools=(tool,)).body["tools"] == [tool]
