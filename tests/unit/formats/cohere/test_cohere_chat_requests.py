"""Requests of Cohere's chat are read and made as its API reference has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from kong_ai_proxy.formats.cohere import CHAT
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
)
from kong_ai_proxy.formats.errors import FormatError
from tests.unit.formats import strategies
from tests.unit.formats.cohere import judge

CALL = ToolCall("c1", "get_weather", '{"location":"Toronto"}')
HELLO = Message("user", (Text("hello"),))
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def conversation(*messages: Message, **more: Any) -> Conversation:
    return Conversation(messages=messages or (HELLO,), model="command-a-plus-05-2026", **more)


def body_of(talk: Conversation) -> dict[str, Any]:
    body = CHAT.render_request(talk).body
    judge.check_request(body)
    return body


def messages_of(*messages: Message) -> Any:
    return body_of(conversation(*messages))["messages"]


def parsed(**body: object) -> Conversation:
    return CHAT.parse_request({"messages": [{"role": "user", "content": "hello"}], **body})


def test_the_documented_request_with_tools_is_read() -> None:
    talk = CHAT.parse_request(judge.fixture("requests.json", "tools"))
    assert talk.messages == (
        Message("system", (Text("You answer briefly."),)),
        Message("user", (Text("What's the weather in Toronto?"),)),
        Message(
            "assistant",
            (
                Text("I will search for the weather in Toronto."),
                ToolCall("get_weather_1byjy32y4hvq", "get_weather", '{"location":"Toronto"}'),
            ),
        ),
        Message(
            "user", (ToolResult("get_weather_1byjy32y4hvq", (Text('{"temperature":"20°C"}'),)),)
        ),
    )
    assert [(tool.name, tool.strict) for tool in talk.tools] == [("get_weather", True)]
    assert talk.tool_choice == ToolChoice("required")
    assert talk.stream
    assert talk.wants_usage
    assert talk.settings == {
        "top_p": 0.5,
        "top_k": 40,
        "stop": ["END"],
        "max_tokens": 100,
        "temperature": 0.3,
        "seed": 7,
        "safety_mode": "STRICT",
        "citation_options": {"mode": "FAST"},
    }


@pytest.mark.parametrize("name", ["tools", "image"])
def test_a_documented_request_is_made_again_from_what_was_read(name: str) -> None:
    body = judge.fixture("requests.json", name)
    rendered = CHAT.render_request(CHAT.parse_request(body))
    judge.check_request(rendered.body)
    assert rendered.dropped == ()
    for message in body["messages"]:
        if message["role"] == "tool":
            message["content"] = '{"temperature":"20°C"}'
    assert rendered.body == {key: value for key, value in body.items() if value is not None}


def test_several_system_messages_are_one_at_the_front_in_their_order() -> None:
    late = Message("system", (Text("two"), Text("three")))
    found = messages_of(Message("system", (Text("one"),)), HELLO, late)
    texts = [{"type": "text", "text": text} for text in ("one", "two", "three")]
    assert found == [{"role": "system", "content": texts}, {"role": "user", "content": "hello"}]


def test_text_beside_calls_is_the_plan_of_them() -> None:
    found = messages_of(HELLO, Message("assistant", (Thinking("hm"), Text("I look it up."), CALL)))
    function = {"name": "get_weather", "arguments": '{"location":"Toronto"}'}
    assert found[1] == {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}],
        "tool_plan": "I look it up.",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def test_results_of_tools_follow_the_calls_whatever_else_the_user_says() -> None:
    other = replace(CALL, id="c2")
    mixed = (Text("and?"), ToolResult("c2", (Text("b"),)), ToolResult("c1", (Text("a"), Text("A"))))
    found = messages_of(HELLO, Message("assistant", (CALL, other)), Message("user", mixed))
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "A"}]
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "c2", "content": "b"},
        {"role": "tool", "tool_call_id": "c1", "content": blocks},
        {"role": "user", "content": "and?"},
    ]


def test_results_in_messages_of_their_own_still_come_before_a_text_between_them() -> None:
    results = [Message("user", (ToolResult(name, (Text("r"),)),)) for name in ("c1", "c2")]
    calls = Message("assistant", (CALL, replace(CALL, id="c2")))
    found = messages_of(HELLO, calls, results[0], HELLO, results[1])
    assert [each["role"] for each in found[2:]] == ["tool", "tool", "user"]


def test_an_assistant_that_said_nothing_is_left_out() -> None:
    assert len(messages_of(HELLO, Message("assistant", ()), HELLO)) == 2


def test_a_refusal_is_text() -> None:
    found = messages_of(HELLO, Message("assistant", (Refusal("No."),)), HELLO)
    assert found[1]["content"] == "No."


def test_an_image_keeps_its_data_and_detail() -> None:
    image = Media(kind="image", data="AAAA", media_type="image/png", detail="low")
    content = messages_of(Message("user", (image,)))[0]["content"]
    url = {"url": "data:image/png;base64,AAAA", "detail": "low"}
    assert content == [{"type": "image_url", "image_url": url}]
    again = CHAT.parse_request({"messages": [{"role": "user", "content": content}]})
    assert again.messages[0].blocks == (image,)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (Message("user", (Text("a"), Media(kind="audio", data="AAAA"))), "messages[0].content[1]"),
        (Message("user", (Media(kind="image", file_id="f"),)), "messages[0].content[0]"),
        (
            Message("user", (ToolResult("c", (Media(kind="image", url="https://a"),)),)),
            "messages[0].content[0].content[0]",
        ),
        (Message("assistant", (Media(kind="image", data="AAAA"),)), "messages[0].content[0]"),
    ],
)
def test_content_that_cohere_does_not_take_is_named(message: Message, place: str) -> None:
    with pytest.raises(FormatError, match=place.replace("[", r"\[")):
        CHAT.render_request(conversation(message))


@pytest.mark.parametrize(
    ("mode", "expected"), [("auto", None), ("none", "NONE"), ("required", "REQUIRED")]
)
def test_tool_choice_is_said_in_coheres_words(mode: Any, expected: str | None) -> None:
    talk = conversation(tools=(Tool(name="a"),), tool_choice=ToolChoice(mode))
    assert body_of(talk).get("tool_choice") == expected


def test_one_certain_tool_is_the_only_one_and_required() -> None:
    tools = (Tool(name="a"), Tool(name="b"))
    body = body_of(conversation(tools=tools, tool_choice=ToolChoice("tool", "b")))
    assert body["tool_choice"] == "REQUIRED"
    assert [tool["function"]["name"] for tool in body["tools"]] == ["b"]


def test_a_chosen_tool_has_to_be_there() -> None:
    with pytest.raises(FormatError, match="tool_choice"):
        CHAT.render_request(conversation(tool_choice=ToolChoice("tool", "b")))


def test_a_tool_without_parameters_has_an_empty_schema() -> None:
    function = body_of(conversation(tools=(Tool(name="a"),)))["tools"][0]["function"]
    assert function == {"name": "a", "parameters": {"type": "object", "properties": {}}}


def test_tools_of_another_kind_are_refused() -> None:
    with pytest.raises(FormatError, match="tools"):
        CHAT.render_request(conversation(native_tools=({"type": "web_search"},)))


def test_tools_are_strict_together_or_not_at_all() -> None:
    strict = Tool(name="a", parameters=SCHEMA, strict=True)
    assert body_of(conversation(tools=(strict,)))["strict_tools"] is True
    rendered = CHAT.render_request(conversation(tools=(strict, Tool(name="b"))))
    assert "strict_tools" not in rendered.body
    assert rendered.dropped == ("strict",)


@pytest.mark.parametrize("member", ["json_schema", "schema"])
def test_a_schema_of_the_answer_is_read_under_both_names(member: str) -> None:
    talk = parsed(response_format={"type": "json_object", member: SCHEMA})
    assert talk.output == OutputFormat(schema=SCHEMA)
    wanted = {"type": "json_object", "json_schema": SCHEMA}
    assert body_of(replace(talk, model="m"))["response_format"] == wanted


def test_any_json_object_and_plain_text_are_told_apart() -> None:
    assert parsed(response_format={"type": "json_object"}).output == OutputFormat()
    assert parsed(response_format={"type": "text"}).output is None
    talk = conversation(output=OutputFormat())
    assert body_of(talk)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (Reasoning(effort="none"), {"type": "disabled"}),
        (Reasoning(effort="medium"), {"type": "enabled", "token_budget": 8192}),
        (Reasoning(effort="xhigh"), {"type": "enabled", "token_budget": 31_000}),
        (Reasoning(budget=500), {"type": "enabled", "token_budget": 500}),
        (Reasoning(budget=-1), {"type": "enabled"}),
        (Reasoning(visible=True), None),
    ],
)
def test_reasoning_is_a_budget_of_thinking(reasoning: Reasoning, thinking: object) -> None:
    assert body_of(conversation(reasoning=reasoning)).get("thinking") == thinking


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [
        ({"type": "disabled"}, 0),
        ({"type": "enabled"}, -1),
        ({"type": "enabled", "token_budget": 500}, 500),
        ({"token_budget": 500}, 500),
    ],
)
def test_thinking_is_read_as_a_budget(thinking: object, budget: int) -> None:
    assert parsed(thinking=thinking).reasoning == Reasoning(budget=budget)


def test_a_top_p_of_one_is_the_largest_that_cohere_takes() -> None:
    assert body_of(conversation(settings={"top_p": 1}))["p"] == 0.99
    assert body_of(conversation(settings={"top_p": 0.5}))["p"] == 0.5


def test_what_cohere_does_not_know_is_dropped_and_named() -> None:
    knobs = {"n": 2, "user": "u", "logit_bias": {}, "top_logprobs": 2, "logprobs": 3}
    talk = conversation(
        Message("user", (Text("hi"),), name="ann"), settings=knobs, parallel_tool_calls=False
    )
    rendered = CHAT.render_request(talk)
    assert sorted(rendered.dropped) == sorted([*knobs, "name", "parallel_tool_calls"])
    assert rendered.body.keys() == {"model", "messages", "stream"}


def test_one_alternative_is_what_cohere_gives_anyway() -> None:
    assert CHAT.render_request(conversation(settings={"n": 1})).dropped == ()


def test_members_of_its_own_pass_through() -> None:
    own = {
        "documents": ["a", {"data": {"text": "b"}, "id": "1"}],
        "safety_mode": "STRICT",
        "priority": 3,
    }
    talk = parsed(**own)
    assert own.items() <= body_of(replace(talk, model="m")).items()


def test_an_extra_body_is_merged_in_last() -> None:
    body = body_of(conversation(extra={"safety_mode": "OFF"}))
    assert body["safety_mode"] == "OFF"
    assert parsed(extra_body={"priority": 1}).extra == {"priority": 1}


def test_a_prompt_is_one_message_of_the_user() -> None:
    body = body_of(conversation(is_completion=True))
    assert body["messages"] == [{"role": "user", "content": "hello"}]


def test_roles_are_read_whatever_their_case() -> None:
    messages = [{"role": "System", "content": "s"}, {"role": "USER", "content": "u"}]
    talk = CHAT.parse_request({"messages": messages, "tool_choice": "none"})
    assert [message.role for message in talk.messages] == ["system", "user"]
    assert talk.tool_choice == ToolChoice("none")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": {}}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"thinking": "on"}, "thinking"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_what_is_wrong_in_a_request_is_named(body: dict[str, object], place: str) -> None:
    with pytest.raises(FormatError) as error:
        CHAT.parse_request(body)
    assert str(error.value).startswith(f"{place}: expected")


ROUND = {
    "names": False,
    "late_systems": False,
    "alternating": True,
    "free_order": False,
    "media_kinds": ("image",),
    "media_files": False,
    "result_media": False,
    "refusals": False,
    "signatures": False,
    "redacted": False,
    "call_signatures": False,
    "result_errors": False,
    "empty_results": False,
    "mixed_results": False,
    "cache": False,
    "strict": False,
    "tool_choices": ("none", "required"),
    "parallel_tool_calls": False,
    "efforts": (),
    "settings": ("temperature", "top_k", "max_tokens", "stop", "seed", "logprobs"),
}


@settings(max_examples=60, deadline=None)
@given(strategies.conversations(**ROUND))
def test_what_cohere_can_say_survives_the_way_there_and_back(talk: Conversation) -> None:
    rendered = CHAT.render_request(talk)
    judge.check_request(rendered.body)
    assert rendered.dropped == ()
    again = CHAT.parse_request(rendered.body)
    assert readable(again) == readable(talk)


def readable(talk: Conversation) -> Conversation:
    """With one system message, the texts of a plan as one, and what Cohere has no word for alike
    on both sides."""
    messages = list(strategies.normal(talk).messages)
    found = [message for message in messages if message.role != "system"]
    if talk.system:
        found.insert(0, Message("system", talk.system))
    tools = [replace(t, parameters=t.parameters or None) for t in talk.tools]
    empty = {"type": "object", "properties": {}}
    tools = [replace(t, parameters=None) if t.parameters == empty else t for t in tools]
    output = talk.output and OutputFormat(schema=talk.output.schema)
    return replace(
        talk,
        messages=tuple(map(planned, found)),
        tools=tuple(tools),
        output=output,
        wants_usage=False,
    )


def planned(message: Message) -> Message:
    calls = [block for block in message.blocks if isinstance(block, ToolCall)]
    texts = [block.text for block in message.blocks if isinstance(block, Text)]
    if message.role != "assistant" or not calls or len(texts) < 2:
        return message
    others = [b for b in message.blocks if not isinstance(b, Text | ToolCall)]
    return replace(message, blocks=(*others, Text("\n".join(texts)), *calls))


def test_a_documents_data_may_be_a_text() -> None:
    """As in the examples of https://docs.cohere.com/v2/docs/tool-use-overview."""
    document = {"type": "document", "document": {"data": '{"celsius": 21}'}}
    body = {"messages": [{"role": "tool", "tool_call_id": "c1", "content": [document]}]}
    [message] = CHAT.parse_request(body, model="m").messages
    assert message.blocks == (ToolResult("c1", (Text('{"celsius": 21}'),)),)
