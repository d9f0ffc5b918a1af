"""Tools of OpenAI's Responses that others know as plain functions: namespaces, custom tools."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Message, Text, Tool, ToolCall, ToolChoice, ToolResult
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    TextPiece,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai.responses import RESPONSES
from tests.unit.formats.openai_responses import judge

Json = dict[str, Any]

NUMBERS: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD: Json = {"type": "function", "name": "add", "description": "Adds.", "parameters": NUMBERS}
PATCH: Json = {
    "type": "custom",
    "name": "patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
SUMS: Json = {"type": "namespace", "name": "sums", "description": "Of numbers.", "tools": [ADD]}
FILES: Json = {"type": "namespace", "name": "files", "description": "", "tools": [PATCH]}
MORE: Json = {"type": "additional_tools", "role": "developer", "tools": [FILES]}
HI: Json = {"role": "user", "content": "Hi"}
REQUEST: Json = {"input": [MORE, HI], "tools": [ADD, SUMS, PATCH]}
CONTEXT = Context(model="asked", id="AbC123", now=1700000000, request=REQUEST)
TEXT = '*** Begin "Patch"\n+1\n'
ARGUMENTS = orjson.dumps({"input": TEXT}).decode()

OWN = {
    "add": {"type": "function_call", "name": "add", "arguments": '{"a":1}'},
    "sums__add": {
        "type": "function_call",
        "name": "add",
        "namespace": "sums",
        "arguments": '{"a":1}',
    },
    "patch": {"type": "custom_tool_call", "name": "patch", "input": TEXT},
    "files__patch": {
        "type": "custom_tool_call",
        "name": "patch",
        "namespace": "files",
        "input": TEXT,
    },
}
"""What a client gets of a call of each function."""


def parse(**members: Any) -> Any:
    return RESPONSES.parse_request({"input": [HI], **members})


def called(name: str, arguments: str | None = None, end: str = "tool_calls") -> list[Delta]:
    """A model's answer with one call, its arguments in pieces of three letters."""
    own = OWN.get(name, {})
    text = arguments if arguments is not None else own.get("arguments", ARGUMENTS)
    pieces = [CallArguments(0, text[i : i + 3]) for i in range(0, len(text), 3)]
    finished: Any = Finished(end)  # type: ignore[arg-type]
    return [CallStarted(0, "call_1", name), *pieces, finished]


def written(*deltas: Delta) -> bytes:
    writer = RESPONSES.writer(CONTEXT)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


def output(deltas: list[Delta]) -> Any:
    """What both ways to write an answer tell."""
    answer: Any = RESPONSES.render_answer(collect(deltas), CONTEXT)
    judge.check_answer(answer)
    streamed = judge.events(written(*deltas))[-1]["response"]["output"]
    assert streamed == answer["output"]
    return streamed


# ---- read


def test_all_of_them_are_functions() -> None:
    found = RESPONSES.parse_request(REQUEST)
    assert [tool.name for tool in found.tools] == ["add", "sums__add", "patch", "files__patch"]
    plain, inner, custom, _ = found.tools
    assert plain == Tool(name="add", description="Adds.", parameters=NUMBERS)
    assert (inner.description, inner.parameters) == ("Adds.", NUMBERS)
    assert custom.description == "Edits files."
    assert custom.parameters == {
        "type": "object",
        "properties": {
            "input": {
                "type": "string",
                "description": "All of it has to match this Lark grammar:\nstart: /.+/",
            }
        },
        "required": ["input"],
        "additionalProperties": False,
    }
    assert found.native_tools == ()


def test_what_a_namespace_is_for_is_said_by_the_system() -> None:
    found = RESPONSES.parse_request({**REQUEST, "instructions": "Be brief."})
    assert found.messages == (
        Message("system", (Text("Be brief."),)),
        Message("system", (Text("Functions called sums__...: Of numbers."),)),
        Message("user", (Text("Hi"),)),
    )


def test_a_custom_tool_may_be_without_a_grammar_or_have_an_expression() -> None:
    for grammar, description in (
        ({"type": "text"}, None),
        (None, None),
        (
            {"type": "grammar", "syntax": "regex", "definition": "a+"},
            "All of it has to match this regular expression:\na+",
        ),
    ):
        (tool,) = parse(tools=[{"type": "custom", "name": "a", "format": grammar}]).tools
        assert tool.parameters["properties"]["input"].get("description") == description


def test_a_name_that_would_be_too_long_is_cut_and_stays_its_own() -> None:
    names = [f"{'function' * 7}{end}" for end in "ab"]
    space = {"type": "namespace", "name": "space" * 5, "tools": [{**ADD, "name": n} for n in names]}
    found = [tool.name for tool in parse(tools=[space]).tools]
    assert [len(name) for name in found] == [64, 64]
    assert len(set(found)) == 2
    context = CONTEXT._replace(request={"input": "Hi", "tools": [space]})
    for flat, own in zip(found, names, strict=True):
        answer: Any = RESPONSES.render_answer(collect(called(flat, "{}")), context)
        (call,) = answer["output"]
        assert (call["name"], call["namespace"]) == (own, "space" * 5)
        (message,) = parse(input=answer["output"], tools=[space]).messages[:1]
        assert message.blocks[0].name == flat


def test_calls_and_results_go_back_under_the_same_names() -> None:
    items = [HI]
    for number, item in enumerate(OWN.values()):
        items.append({**item, "call_id": f"call_{number}"})
    results: list[Json] = [
        {"type": "function_call_output", "name": "add", "namespace": "sums", "output": "2"},
        {"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "done"}]},
    ]
    items += [{**item, "call_id": f"call_{number + 1}"} for number, item in enumerate(results)]
    assert parse(input=items).messages[1:] == (
        Message(
            "assistant",
            (
                ToolCall("call_0", "add", '{"a":1}'),
                ToolCall("call_1", "sums__add", '{"a":1}'),
                ToolCall("call_2", "patch", ARGUMENTS),
                ToolCall("call_3", "files__patch", ARGUMENTS),
            ),
        ),
        Message(
            "user",
            (
                ToolResult("call_1", (Text("2"),), "sums__add"),
                ToolResult("call_2", (Text("done"),)),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"type": "custom", "name": "patch"}, ToolChoice("tool", "patch")),
        ({"type": "function", "name": "add", "namespace": "sums"}, ToolChoice("tool", "sums__add")),
    ],
)
def test_one_of_them_can_be_chosen(choice: Json, found: ToolChoice) -> None:
    assert RESPONSES.parse_request({**REQUEST, "tool_choice": choice}).tool_choice == found


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_those_that_are_allowed_are_asked_for(mode: str) -> None:
    native = [{"type": "web_search_20250305", "name": "web_search"}, {"type": "memory_20250818"}]
    allowed = [{"type": "function", "name": "add"}, {"type": "memory_20250818"}, {"type": []}, 3]
    choice = {"type": "allowed_tools", "mode": mode, "tools": allowed}
    found = RESPONSES.parse_request(
        {**REQUEST, "tools": [*REQUEST["tools"], *native], "tool_choice": choice}
    )
    assert [tool.name for tool in found.tools] == ["add"]
    assert found.native_tools == ({"type": "memory_20250818"},)
    assert found.tool_choice == ToolChoice(mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"tools": [{"type": "namespace", "tools": [ADD]}]}, "tools[0].name: expected a string"),
        ({"tools": [{**SUMS, "tools": 3}]}, "tools[0].tools: expected an array"),
        (
            {"tools": [{**SUMS, "tools": [{"type": "web_search"}]}]},
            "tools[0].tools[0].type: expected function or custom",
        ),
        ({"tools": [{**SUMS, "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].name"),
        ({"tools": [{"type": "custom", "name": "a", "format": "x"}]}, "tools[0].format"),
        ({"tools": [{**SUMS, "tools": [ADD] * 1025}]}, "tools: expected at most 1024 functions"),
        (
            {"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}, HI]},
            "input[0].tools[0].type: expected function: OpenAI's tool mcp",
        ),
        ({"input": [{"type": "custom_tool_call", "call_id": "a", "name": "b"}]}, "input[0].input"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "none"}}, "tool_choice: expected"),
        ({"tool_choice": ["auto"]}, "tool_choice: expected"),
    ],
)
def test_what_cannot_be_read_says_where(members: Json, text: str) -> None:
    with pytest.raises(FormatError) as raised:
        parse(**members)
    assert text in str(raised.value)


# ---- written


@pytest.mark.parametrize("name", OWN)
def test_a_call_has_the_clients_own_name_and_kind(name: str) -> None:
    (item,) = output(called(name))
    assert OWN[name].items() <= item.items()
    assert (item["call_id"], item["status"]) == ("call_1", "completed")
    assert ("namespace" in item) == ("__" in name)


def test_the_input_of_a_custom_tool_has_its_own_events() -> None:
    events = judge.events(written(*called("patch")))
    assert [event["type"].removeprefix("response.") for event in events[2:]] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    added, delta, done, _, _ = events[2:]
    assert (added["item"]["type"], added["item"]["input"]) == ("custom_tool_call", "")
    assert delta["delta"] == done["input"] == TEXT
    assert {event["item_id"] for event in (delta, done)} == {added["item"]["id"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [("", ""), ("{}", ""), ('{"other":1}', '{"other":1}'), ('{"input":3}', '{"input":3}')],
)
def test_other_arguments_of_a_custom_tool_are_told_as_they_are(arguments: str, told: str) -> None:
    (item,) = output(called("patch", arguments))
    assert item["input"] == told


def test_a_call_that_was_cut_is_incomplete() -> None:
    (item,) = output(called("patch", '{"input":"*** Beg', "length"))
    assert (item["status"], item["input"]) == ("incomplete", '{"input":"*** Beg')


def test_calls_of_all_kinds_side_by_side_keep_to_themselves() -> None:
    deltas: list[Delta] = [TextPiece("Both.")]
    for number, name in enumerate(OWN):
        deltas.append(CallStarted(number, f"call_{number}", name))
    for number, own in reversed(list(enumerate(OWN.values()))):
        deltas.append(CallArguments(number, own.get("arguments", ARGUMENTS)))
    found = output([*deltas, Finished("tool_calls")])
    assert all(OWN[name].items() <= item.items() for name, item in zip(OWN, found[1:], strict=True))
    assert len({item["id"] for item in found}) == 5


def test_a_stream_that_fails_tells_no_input_that_is_not_whole() -> None:
    started = CallStarted(0, "call_1", "patch"), CallArguments(0, '{"input":"*** ')
    data = written(*started, Failed(ProviderError("a")))
    assert b"custom_tool_call_input" not in data


@pytest.mark.parametrize("tools", [None, [], [ADD]])
def test_a_function_that_nobody_named_is_one(tools: list[Json] | None) -> None:
    context = CONTEXT._replace(request={"input": "Hi", "tools": tools})
    answer: Any = RESPONSES.render_answer(collect(called("x__y", "{}")), context)
    (item,) = answer["output"]
    assert (item["type"], item["name"]) == ("function_call", "x__y")
