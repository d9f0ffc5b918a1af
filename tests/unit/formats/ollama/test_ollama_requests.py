"""Conversations, prompts and texts as Ollama's own API takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import orjson
import pytest

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
from kong_ai_proxy.formats.embeddings import EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.ollama import CHAT, EMBED, GENERATE
from tests.providers import ollama_api
from tests.unit.formats.strategies import conversations

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "chat.json").read_text())
WEATHER = Tool(
    name="get_weather",
    description="Get the weather in a given city",
    parameters=FIXTURE["history_with_tools"]["tools"][0]["function"]["parameters"],
)


OLLAMA = ollama_api._CHAT
"""Ollama's request as its reference has it; raises for anything else."""


def user(*blocks: Any) -> Message:
    return Message("user", tuple(Text(each) if isinstance(each, str) else each for each in blocks))


def assistant(*blocks: Any) -> Message:
    return replace(user(*blocks), role="assistant")


def asking(*messages: Message, **more: Any) -> Conversation:
    return Conversation(messages=messages or (user("Hi"),), model="llama3.2", **more)


def rendered(conversation: Conversation) -> Mapping[str, Any]:
    return CHAT.render_request(conversation).body


def messages(*given: Message) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rendered(asking(*given))["messages"]
    return found


def test_the_references_history_with_tools() -> None:
    conversation = asking(
        user("what is the weather in Toronto?"),
        assistant(ToolCall("", "get_weather", '{"city":"Toronto"}')),
        user(ToolResult("", (Text("11 degrees celsius"),))),
        tools=(WEATHER,),
        stream=True,
    )
    assert CHAT.render_request(conversation) == (FIXTURE["history_with_tools"], ())


def test_stream_is_always_said_for_ollama_streams_by_itself() -> None:
    assert rendered(asking())["stream"] is False


def test_several_texts_become_one() -> None:
    assert messages(user("a", "b")) == [{"role": "user", "content": "a\nb"}]


def test_system_texts_stay_in_order_and_in_place() -> None:
    system = Message("system", (Text("one"), Text("two")))
    found = messages(system, user("Hi"), replace(system, blocks=(Text("late"),)), user("Ho"))
    assert [(each["role"], each["content"]) for each in found] == [
        ("system", "one\ntwo"),
        ("user", "Hi"),
        ("system", "late"),
        ("user", "Ho"),
    ]


def test_images_are_data_beside_the_text() -> None:
    image = Media(kind="image", data="iVBORw0KGgo=", media_type="image/png")
    assert messages(user("what is this?", image)) == [
        {"role": "user", "content": "what is this?", "images": ["iVBORw0KGgo="]}
    ]


@pytest.mark.parametrize(
    "media",
    [
        Media(kind="image", url="https://example.com/a.png"),
        Media(kind="image", file_id="file-1"),
        Media(kind="audio", data="AAAA"),
        Media(kind="file", data="AAAA"),
    ],
)
def test_other_media_are_refused_by_their_place(media: Media) -> None:
    with pytest.raises(FormatError, match=r"messages\[1\]\.content\[1\]: expected .*base64"):
        messages(user("a"), user("b", media))


def test_media_in_results_are_looked_at_too() -> None:
    image = Media(kind="image", url="https://example.com/a.png")
    with pytest.raises(FormatError, match=r"messages\[0\]\.content\[0\]"):
        messages(user(ToolResult("call_1", (image,))))


def test_text_thoughts_and_parallel_calls_of_the_assistant_survive() -> None:
    found = messages(
        assistant(Thinking("hm"), "Let me see.", ToolCall("a", "f"), ToolCall("b", "g", '{"x":[]}'))
    )
    assert found == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "thinking": "hm",
            "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": {}}},
                {"id": "b", "function": {"name": "g", "arguments": {"x": []}}},
            ],
        }
    ]


def test_results_come_in_the_order_of_their_calls_beside_other_blocks() -> None:
    found = messages(
        assistant(ToolCall("a", "f"), ToolCall("b", "f")),
        user("before", ToolResult("b", (Text("of b"),))),
        user(ToolResult("a", (Text("of a"),)), "after"),
    )
    assert found[1:] == [
        {"role": "user", "content": "before"},
        {"role": "tool", "content": "of a", "tool_name": "f", "tool_call_id": "a"},
        {"role": "tool", "content": "of b", "tool_name": "f", "tool_call_id": "b"},
        {"role": "user", "content": "after"},
    ]


def test_arguments_that_are_no_object_are_refused_by_their_place() -> None:
    with pytest.raises(FormatError, match=r"messages\[0\]\.tool_calls\[0\]\.function\.arguments"):
        messages(assistant(ToolCall("a", "f", "[1]")))


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_tool_without_parameters_has_an_empty_schema(
    parameters: dict[str, object] | None,
) -> None:
    body = rendered(asking(tools=(Tool(name="f", parameters=parameters),)))
    assert body["tools"][0]["function"] == {
        "name": "f",
        "parameters": {"type": "object", "properties": {}},
    }


def test_tools_of_other_providers_are_refused() -> None:
    with pytest.raises(FormatError, match="tools"):
        rendered(asking(native_tools=({"type": "web_search"},)))


@pytest.mark.parametrize(
    ("choice", "has_tools", "dropped"),
    [
        (ToolChoice("auto"), True, ()),
        (ToolChoice("none"), False, ()),
        (ToolChoice("required"), True, ("tool_choice",)),
        (ToolChoice("tool", "get_weather"), True, ("tool_choice",)),
    ],
)
def test_tool_choice(choice: ToolChoice, has_tools: bool, dropped: tuple[str, ...]) -> None:
    found = CHAT.render_request(asking(tools=(WEATHER,), tool_choice=choice))
    assert ("tools" in found.body, found.dropped) == (has_tools, dropped)


def test_settings_become_options() -> None:
    settings = {
        "max_tokens": 100,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 20,
        "stop": ["\n", "user:"],
        "seed": 42,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
        "num_ctx": 1024,
    }
    body = rendered(asking(settings=settings))
    assert body["options"] == {
        "num_predict": 100,
        **{name: value for name, value in settings.items() if name != "max_tokens"},
    }


def test_options_of_the_clients_own_win() -> None:
    settings = {"max_tokens": 100, "seed": 1, "options": {"num_predict": 7, "num_gpu": 1}}
    options = rendered(asking(settings=settings))["options"]
    assert options == {"num_predict": 7, "seed": 1, "num_gpu": 1}


def test_members_of_ollamas_own_are_passed_on() -> None:
    settings = {"keep_alive": "10m", "think": "low", "format": "json"}
    body = rendered(asking(settings=settings))
    assert {name: body[name] for name in settings} == settings
    assert "options" not in body


def test_unknown_settings_are_dropped_and_named() -> None:
    settings = {"user": "me", "n": 2, "logit_bias": {}, "temperature": 1}
    found = CHAT.render_request(asking(settings=settings, parallel_tool_calls=False))
    assert found.dropped == ("logit_bias", "n", "parallel_tool_calls", "user")


def test_what_is_lost_of_messages_is_named() -> None:
    conversation = asking(
        replace(user(Text("Hi", cache="")), name="ann"),
        assistant(Thinking("", redacted="AAAA"), ToolCall("a", "f")),
        user(ToolResult("a", is_error=True)),
    )
    dropped = CHAT.render_request(conversation).dropped
    assert dropped == ("cache_control", "is_error", "name", "redacted_thinking")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputFormat(), "json"),
        (
            OutputFormat(schema={"type": "object", "required": []}),
            {"type": "object", "required": []},
        ),
    ],
)
def test_output_format(output: OutputFormat, expected: object) -> None:
    assert rendered(asking(output=output))["format"] == expected


@pytest.mark.parametrize(
    ("reasoning", "think"),
    [
        (Reasoning(effort="none"), False),
        (Reasoning(effort="minimal"), "low"),
        (Reasoning(effort="medium"), "medium"),
        (Reasoning(effort="xhigh"), "high"),
        (Reasoning(budget=0), False),
        (Reasoning(budget=-1), True),
        (Reasoning(budget=9000), "medium"),
        (Reasoning(visible=True), None),
    ],
)
def test_reasoning(reasoning: Reasoning, think: object) -> None:
    assert rendered(asking(reasoning=reasoning)).get("think") == think


def test_log_probabilities_of_chats_and_of_completions() -> None:
    chat = rendered(asking(settings={"logprobs": True, "top_logprobs": 3}))
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 3)
    completion = rendered(asking(settings={"logprobs": 3}))
    assert (completion["logprobs"], completion["top_logprobs"]) == (True, 3)


@hypothesis.given(conversations(media_urls=False, media_files=False, media_kinds=("image",)))
def test_every_text_call_and_result_is_carried_over(conversation: Conversation) -> None:
    body = rendered(conversation)
    written = "\n".join(str(message["content"]) for message in body["messages"])
    calls = [call for message in body["messages"] for call in message.get("tool_calls", [])]
    blocks = [block for message in conversation.messages for block in message.blocks]
    assert all(block.text in written for block in blocks if isinstance(block, Text))
    assert [call["function"]["name"] for call in calls] == [
        block.name for block in blocks if isinstance(block, ToolCall)
    ]
    results = [message for message in body["messages"] if message["role"] == "tool"]
    assert len(results) == sum(isinstance(block, ToolResult) for block in blocks)
    OLLAMA.check(orjson.loads(orjson.dumps(body)))


# --- /api/generate ---


def test_a_prompt_to_be_continued() -> None:
    conversation = asking(
        user("def compute_gcd(a, b):"),
        is_completion=True,
        settings={"suffix": "    return result", "temperature": 0, "echo": True, "best_of": 2},
    )
    assert GENERATE.render_request(conversation) == (
        {
            "model": "llama3.2",
            "prompt": "def compute_gcd(a, b):",
            "stream": False,
            "suffix": "    return result",
            "options": {"temperature": 0},
        },
        ("best_of",),
    )


def test_system_and_images_beside_a_prompt() -> None:
    image = Media(kind="image", data="AAAA")
    body = GENERATE.render_request(
        asking(Message("system", (Text("Be short."),)), user("what is this?", image))
    ).body
    assert (body["system"], body["images"]) == ("Be short.", ["AAAA"])


@pytest.mark.parametrize(
    "conversation",
    [
        asking(user("a"), assistant("b"), user("c")),
        asking(user("a"), tools=(WEATHER,)),
        asking(user(ToolResult("a"))),
        Conversation(messages=()),
    ],
)
def test_more_than_a_prompt_is_refused(conversation: Conversation) -> None:
    with pytest.raises(FormatError, match="messages"):
        GENERATE.render_request(conversation)


# --- /api/embed ---


def test_one_text_and_several() -> None:
    one = EmbeddingsRequest(inputs=("a",), is_array=False, model="all-minilm")
    assert EMBED.render_request(one) == ({"model": "all-minilm", "input": "a"}, ())
    several = EmbeddingsRequest(inputs=("a", "b"), model="all-minilm", dimensions=64)
    assert EMBED.render_request(several).body == {
        "model": "all-minilm",
        "input": ["a", "b"],
        "dimensions": 64,
    }


def test_what_embeddings_drop_is_named() -> None:
    request = EmbeddingsRequest(
        inputs=("a",), input_type="search_query", settings={"user": "me", "truncate": False}
    )
    found = EMBED.render_request(request)
    assert found.body["truncate"] is False
    assert found.dropped == ("input_type", "user")


def test_token_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="input"):
        EMBED.render_request(EmbeddingsRequest(tokens=((1, 2),)))
