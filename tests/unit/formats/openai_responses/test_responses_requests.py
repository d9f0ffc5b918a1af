"""Requests of OpenAI's Responses: a client's read, a provider's written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from kong_ai_proxy.formats.conversation import (
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
    effort,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai.responses import RESPONSES
from kong_ai_proxy.formats.openai.responses_tools import HOSTED
from tests.unit.formats import strategies
from tests.unit.formats.openai_responses import judge

REQUESTS: dict[str, Any] = {
    name: each["body"]
    for name, each in orjson.loads(
        (Path(__file__).parent / "fixtures" / "requests.json").read_bytes()
    ).items()
}
OWN = "rs_1:gAAAAABoZw=="
"""The hub's signature of a thought of OpenAI's."""


def parse(**members: object) -> Conversation:
    return RESPONSES.parse_request({"input": "Hi", **members})


def parse_input(*items: Any) -> tuple[Message, ...]:
    return RESPONSES.parse_request({"input": list(items)}).messages


def render(*messages: Message, **members: Any) -> dict[str, Any]:
    body = RESPONSES.render_request(Conversation(messages=messages, **members)).body
    judge.check_request(body)
    return body


def without_thoughts(message: Message) -> Message:
    spoken = (block for block in message.blocks if not isinstance(block, Thinking))
    return replace(message, blocks=tuple(spoken))


HI = Message("user", (Text("Hi"),))


# ---- read


def test_instructions_and_a_text_are_read() -> None:
    found = RESPONSES.parse_request(REQUESTS["text"])
    assert found.model == "gpt-4.1"
    assert found.messages == (
        Message("system", (Text("You are a helpful assistant."),)),
        Message("user", (Text("Tell me a three sentence bedtime story about a unicorn."),)),
    )
    assert found.wants_usage
    assert found.settings == {}


def test_the_path_has_the_last_word_on_model_and_stream() -> None:
    found = RESPONSES.parse_request({**REQUESTS["text"], "stream": True}, model="a", stream=False)
    assert (found.model, found.stream) == ("a", False)


def test_images_and_files_are_read() -> None:
    (message,) = RESPONSES.parse_request(REQUESTS["media"]).messages
    assert message.blocks[1:] == (
        Media(kind="image", url="https://example.com/boardwalk.jpg", detail="low"),
        Media(kind="image", data="iVBORw0KGgo=", media_type="image/png"),
        Media(kind="image", file_id="file-img"),
        Media(kind="file", data="JVBERi0=", media_type="application/pdf", name="draconomicon.pdf"),
        Media(kind="file", url="https://example.com/letter.pdf"),
        Media(kind="file", file_id="file-6F2ksmvXxt4VdoqmHRw6kL"),
    )


def test_calls_results_and_thoughts_are_read() -> None:
    found = RESPONSES.parse_request(REQUESTS["tools"])
    boston, paris = '{"location":"Boston, MA"}', '{"location":"Paris"}'
    assert found.messages[2:] == (
        Message(
            "assistant",
            (
                Thinking("Two places.\n\nTwo calls."),
                Text("I look at both."),
                ToolCall("call_1", "get_current_weather", boston),
                ToolCall("call_2", "get_current_weather", paris),
            ),
        ),
        Message(
            "user",
            (
                ToolResult(
                    "call_2",
                    (Text("a map:"), Media(kind="image", url="https://example.com/paris.png")),
                ),
                ToolResult("call_1", (Text('{"temperature":8}'),)),
            ),
        ),
    )
    assert found.messages[0].role == "system"
    (tool,) = found.tools
    assert (tool.name, tool.strict) == ("get_current_weather", True)
    assert found.tool_choice == ToolChoice("tool", "get_current_weather")
    assert found.parallel_tool_calls is True


def test_options_are_read_under_their_common_names() -> None:
    found = RESPONSES.parse_request(REQUESTS["options"])
    assert found.stream
    assert found.output is not None
    assert (found.output.name, found.output.strict) == ("colour", True)
    assert found.reasoning == Reasoning(effort="low", visible=True)
    assert found.settings == {
        "max_tokens": 500,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "logprobs": True,
        "verbosity": "low",
        "user": "u-1",
        "metadata": {"team": "a"},
        "service_tier": "flex",
        "safety_identifier": "s-1",
        "prompt_cache_key": "k-1",
    }


def test_what_only_the_provider_knows_stays_in_the_settings() -> None:
    asked = {"truncation": "auto", "max_tool_calls": 3, "include": ["file_search_call.results"]}
    assert parse(**asked).settings == asked


def test_options_that_nobody_else_has_are_told_by_their_places() -> None:
    found = parse(
        reasoning={"effort": "max", "context": "all_turns", "mode": None},
        text={"verbosity": "low", "voice": "calm"},
        context_management=[{"type": "compaction", "compact_threshold": 9}],
    )
    assert found.reasoning == Reasoning(effort="xhigh")
    assert list(found.settings) == [
        *("verbosity", "text.voice", "reasoning.context", "context_management.compaction"),
    ]


def test_one_stop_is_a_list_of_one() -> None:
    assert parse(stop="END").settings == {"stop": ["END"]}


@pytest.mark.parametrize(
    ("said", "found"), [("original", "high"), ("low", "low"), ("auto", ""), (None, "")]
)
def test_a_detail_is_one_that_others_know(said: str | None, found: str) -> None:
    image = {"type": "input_image", "file_id": "file-1", "detail": said}
    (message,) = parse_input({"role": "user", "content": [image]})
    assert message.blocks == (Media(kind="image", file_id="file-1", detail=found),)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat()),
        (
            {"type": "json_schema", "name": "a", "schema": {}},
            OutputFormat(schema={}, name="a"),
        ),
    ],
)
def test_a_format_of_the_answer_is_read(asked: object, found: OutputFormat | None) -> None:
    assert parse(text={"format": asked}).output == found


def test_tools_of_other_providers_are_native_ones() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    assert parse(tools=[tool]).native_tools == (tool,)


@pytest.mark.parametrize("kind", sorted(HOSTED - {"custom", "namespace"}))
def test_a_tool_that_openai_runs_is_refused_by_name(kind: str) -> None:
    with pytest.raises(FormatError, match=rf"tools\[0\]\.type: .* OpenAI's tool {kind} is not"):
        parse(tools=[{"type": kind}])


@pytest.mark.parametrize("strict", [False, None])
def test_a_function_that_is_not_strict_need_not_say_so(strict: bool | None) -> None:
    (tool,) = parse(tools=[{"type": "function", "name": "a", "strict": strict}]).tools
    assert tool.strict is None


def test_messages_that_follow_each_other_stay_apart() -> None:
    said = [
        *({"role": "user", "content": text} for text in "ab"),
        *({"role": "assistant", "content": text} for text in "cd"),
    ]
    found = [message.blocks for message in parse_input(*said)]
    assert found == [(Text(text),) for text in "abcd"]


def test_a_turn_is_one_message() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "a", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    items = [thought, call, result, {"role": "user", "content": "Go on."}, thought, call, result]
    found = [[type(block) for block in message.blocks] for message in parse_input(*items)]
    assert found == [
        [Thinking, ToolCall],
        [ToolResult],
        [Text],
        [Thinking, ToolCall],
        [ToolResult],
    ]


def test_a_conversation_is_put_together_in_linear_time() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "a", "arguments": "{}"}
    (message,) = parse_input(*[call] * 10_000)
    assert len(message.blocks) == 10_000


def test_a_cache_point_is_read_with_the_lifetime_others_know() -> None:
    def part(**ttl: str) -> dict[str, object]:
        point = {"mode": "explicit", **ttl}
        return {"type": "input_text", "text": "a", "prompt_cache_breakpoint": point}

    parts = [part(), part(ttl="30m"), part(ttl="12h")]
    (message,) = parse_input({"role": "user", "content": parts})
    assert [getattr(block, "cache", None) for block in message.blocks] == ["", "", "1h"]


def test_roles_are_compared_without_regard_to_case() -> None:
    assert parse_input({"role": "Developer", "content": "a"})[0].role == "system"


def test_an_image_that_the_model_made_stays_its_own() -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}
    image = Media(kind="image", data="AAAA", media_type="image/png")
    assert parse_input(item) == (Message("assistant", (image,)),)


def test_what_google_signed_belongs_to_the_call_right_behind_it() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "a", "arguments": "{}"}
    signed = {"type": "reasoning", "summary": [], "encrypted_content": "call:c2ln"}
    said = {"role": "assistant", "content": "One moment."}
    for items, expected in (([signed, call, call], ["c2ln", ""]), ([signed, said, call], [""])):
        (message,) = parse_input(*items)
        found = [block.signature for block in message.blocks if isinstance(block, ToolCall)]
        assert found == expected


def test_a_thought_that_says_nothing_is_left_out() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert parse_input(thought, {"role": "user", "content": "Hi"}) == (HI,)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"input": None}, "input: expected a string or a non-empty array"),
        ({"input": []}, "input: expected a string or a non-empty array"),
        ({"input": [3]}, "input[0]: expected an object"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input: expected something"),
        ({"input": [{"type": "additional_tools", "tools": []}]}, "input: expected something"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role: expected one of user"),
        ({"input": [{"role": "user"}]}, "input[0].content: expected a string or an array"),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "a"}]}]},
            "only models refuse",
        ),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "file_id": "a"}]}]},
            "input[0].content[0].type: expected input_text",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].image_url: expected a URL",
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "data:a"}]}
                ]
            },
            "input[0].content[0].image_url: a data URL",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0].file_data: expected",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "send the item itself"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type: expected"),
        ({"input": [{"type": "function_call", "name": "a"}]}, "input[0].call_id: expected"),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "input[0].output"),
        (
            {"input": [{"type": "function_call_output", "call_id": "a", "output": [{"type": 1}]}]},
            "input[0].output[0].type",
        ),
        ({"instructions": []}, "instructions: expected a string"),
        ({"previous_response_id": "resp_1"}, "previous_response_id: this route keeps no"),
        ({"conversation": "conv_1"}, "conversation: this route keeps no"),
        ({"store": True}, "store: this route keeps no responses"),
        ({"background": True}, "background: this route keeps no responses"),
        ({"background": "yes"}, "background: expected true or false"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt: stored prompts"),
        ({"tools": {}}, "tools: expected an array"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools[0].name: expected"),
        ({"tools": [{"name": "a"}]}, "tools[0].type: expected"),
        ({"tool_choice": "any"}, "tool_choice: expected one of"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice: expected one of"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type: expected text"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema: expected"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort: expected none"),
        ({"include": "a"}, "include: expected an array"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls: expected true or false"),
        ({"model": 3}, "expected 'model' to be a string"),
    ],
)
def test_a_request_that_cannot_be_converted_says_where(
    members: dict[str, object], text: str
) -> None:
    with pytest.raises(FormatError) as raised:
        parse(**members)
    assert text in str(raised.value)


# ---- written


def test_messages_are_written_as_items_in_their_order() -> None:
    body = render(
        Message("system", (Text("a"), Text("b"))),
        HI,
        Message("assistant", (Text("x"), Text("y"), ToolCall("call_1", "f", '{"a":1}'))),
        Message("user", (Text("first"), ToolResult("call_1", (Text("8"),)), Text("then"))),
        model="gpt-5",
    )
    assert body == {
        "model": "gpt-5",
        "store": False,
        "input": [
            {
                "type": "message",
                "role": "system",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_text", "text": "b"},
                ],
            },
            {"type": "message", "role": "user", "content": "Hi"},
            {"type": "message", "role": "assistant", "content": "xy"},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
            {"type": "message", "role": "user", "content": "first"},
            {"type": "function_call_output", "call_id": "call_1", "output": "8"},
            {"type": "message", "role": "user", "content": "then"},
        ],
    }


def test_media_are_written() -> None:
    image = Media(kind="image", data="AAAA", media_type="image/png", detail="low")
    stored = Media(kind="image", file_id="file-1")
    pdf = Media(kind="file", data="JVBERi0=", media_type="application/pdf")
    linked = Media(kind="file", url="https://example.com/a.pdf")
    (item,) = render(Message("user", (image, stored, pdf, linked)))["input"]
    assert item["content"] == [
        {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_image", "detail": "auto", "file_id": "file-1"},
        {
            "type": "input_file",
            "filename": "file.pdf",
            "file_data": "data:application/pdf;base64,JVBERi0=",
        },
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("user", (Media(kind="audio", data="AAAA"),)), "takes no audio"),
        (Message("user", (Refusal("No."),)), "can be the user's"),
        (Message("assistant", (Media(kind="image", data="AAAA"),)), "messages[0].content[0]"),
        (
            Message("user", (ToolResult("a", (Media(kind="video", url="https://a/b"),)),)),
            "a tool result's content",
        ),
    ],
)
def test_content_that_the_format_lacks_says_where(message: Message, text: str) -> None:
    with pytest.raises(FormatError) as raised:
        RESPONSES.render_request(Conversation(messages=(message,)))
    assert text in str(raised.value)


def test_an_own_thought_goes_back_with_its_id() -> None:
    body = render(HI, Message("assistant", (Thinking("Hm.", OWN), Text("Yes."))), HI)
    assert body["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAAAABoZw==",
    }


def test_thoughts_of_others_and_those_that_led_to_nothing_stay_out() -> None:
    others = Thinking("a", "c2lnbmVk"), Thinking("b"), Thinking("", redacted="AAAA")
    body = render(
        HI,
        Message("assistant", (*others, Text("Yes."))),
        HI,
        Message("assistant", (Thinking("Hm.", OWN),)),
        HI,
    )
    assert [item["type"] for item in body["input"]] == ["message"] * 4


def test_a_refusal_and_an_error_of_a_tool_are_written() -> None:
    failed = ToolResult("call_1", (Text("no such place"),), is_error=True)
    body = render(HI, Message("assistant", (Refusal("No."),)), Message("user", (failed,)))
    assert body["input"][1]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert body["input"][2]["output"] == "Error: no such place"


def test_a_result_with_an_image_is_parts() -> None:
    image = Media(kind="image", url="https://example.com/a.png")
    body = render(HI, Message("user", (ToolResult("a", (image,), is_error=True),)))
    assert body["input"][1]["output"] == [
        {"type": "input_text", "text": "Error:"},
        {"type": "input_image", "detail": "auto", "image_url": "https://example.com/a.png"},
    ]


def test_functions_are_strict_only_where_that_was_said() -> None:
    tools = Tool(name="a"), Tool(name="b", parameters={"type": "object"}, strict=True)
    body = render(HI, tools=tools, tool_choice=ToolChoice("tool", "a"), parallel_tool_calls=False)
    nothing = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {"type": "function", "name": "a", "parameters": nothing, "strict": False},
        {"type": "function", "name": "b", "parameters": {"type": "object"}, "strict": True},
    ]
    assert body["tool_choice"] == {"type": "function", "name": "a"}
    assert body["parallel_tool_calls"] is False


def test_what_is_said_about_tools_is_left_out_without_any() -> None:
    body = render(HI, tool_choice=ToolChoice("auto"), parallel_tool_calls=True)
    assert body.keys() == {"input", "store"}


def test_hosted_tools_of_this_format_are_passed_on_and_others_refused() -> None:
    tool = {"type": "web_search"}
    assert render(HI, native_tools=(tool,))["tools"] == [tool]
    others: list[dict[str, object]] = [
        {"type": "bash_20250124"},
        {"googleSearch": {}},
        {"type": "custom", "custom": {"name": "a"}},
    ]
    for foreign in others:
        with pytest.raises(FormatError, match="is no function"):
            RESPONSES.render_request(Conversation(messages=(HI,), native_tools=(foreign,)))


def test_options_are_written_under_their_own_names() -> None:
    schema = OutputFormat(schema={"type": "object"}, name="a", description="b", strict=True)
    body = render(
        HI,
        stream=True,
        output=schema,
        reasoning=Reasoning(budget=8192, visible=True),
        settings={
            "max_tokens": 50,
            "temperature": 1,
            "logprobs": True,
            "top_logprobs": 2,
            "verbosity": "low",
            "include": ["file_search_call.results"],
            "stream_options": {"include_obfuscation": False},
            "store": True,
        },
    )
    del body["input"]
    assert body == {
        "store": True,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "max_output_tokens": 50,
        "temperature": 1,
        "top_logprobs": 2,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": [
            "reasoning.encrypted_content",
            "message.output_text.logprobs",
            "file_search_call.results",
        ],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "a",
                "description": "b",
                "schema": {"type": "object"},
                "strict": True,
            },
            "verbosity": "low",
        },
    }


def test_models_that_shall_not_think_are_not_asked_for_thoughts() -> None:
    assert "include" not in render(HI, reasoning=Reasoning(effort="none"))
    assert render(HI, output=OutputFormat())["text"] == {"format": {"type": "json_object"}}


def test_knobs_that_the_format_lacks_are_dropped_by_name() -> None:
    said = Message("user", (Text("Hi", cache=""),), name="ann")
    conversation = Conversation(
        messages=(said,), settings={"stop": ["a"], "seed": 1, "n": 2, "max_tokens": 5}
    )
    rendered = RESPONSES.render_request(conversation)
    assert rendered.dropped == ("stop", "seed", "n", "cache_control", "name")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_survives_both_ways_but_for_thoughts(name: str) -> None:
    conversation = RESPONSES.parse_request(REQUESTS[name])
    rendered = RESPONSES.render_request(conversation)
    judge.check_request(rendered.body)
    assert not rendered.dropped
    expected = replace(conversation, messages=tuple(map(without_thoughts, conversation.messages)))
    assert RESPONSES.parse_request(rendered.body) == expected


CAN: dict[str, Any] = {
    "names": False,
    "media_kinds": ("image", "file"),
    "refusals": False,  # the types want ids of messages that have any
    "thinking": False,
    "call_signatures": False,
    "result_errors": False,
    "cache": False,
    "budgets": (),
    "settings": ("temperature", "top_p", "max_tokens", "user"),
}


@settings(deadline=None, max_examples=50)  # the judge is slow
@given(strategies.conversations(**CAN))
def test_any_conversation_survives_both_ways(conversation: Conversation) -> None:
    rendered = RESPONSES.render_request(conversation)
    judge.check_request(orjson.loads(orjson.dumps(rendered.body)))
    found = RESPONSES.parse_request(orjson.loads(orjson.dumps(rendered.body)))
    assert _same(found) == _same(conversation)


def _same(conversation: Conversation) -> Conversation:
    """Without what the format says in other words."""
    messages = [
        replace(message, blocks=tuple(_joined(message)))
        for message in strategies.normal(conversation).messages
    ]
    nothing = {"type": "object", "properties": {}}
    return replace(
        conversation,
        messages=tuple(message for message in messages if message.blocks),
        tools=tuple(
            replace(tool, strict=bool(tool.strict), parameters=tool.parameters or nothing)
            for tool in conversation.tools
        ),
        wants_usage=True,
    )


def _joined(message: Message) -> list[Any]:
    """Texts of the assistant as one."""
    found: list[Any] = []
    for block in message.blocks:
        last = found[-1] if found else None
        if message.role == "assistant" and isinstance(block, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + block.text)
        else:
            found.append(block)
    return found


def test_a_budget_is_the_effort_it_comes_nearest_to() -> None:
    assert render(HI, reasoning=Reasoning(budget=2048))["reasoning"] == {"effort": effort(2048)}
