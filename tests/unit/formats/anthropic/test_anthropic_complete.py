"""Anthropic's old text completions: requests and whole answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kong_ai_proxy.formats.anthropic import COMPLETE
from kong_ai_proxy.formats.codec import Context
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
)
from kong_ai_proxy.formats.deltas import Answer, Choice, Finished, Started, TextPiece
from kong_ai_proxy.formats.errors import FormatError

CONTEXT = Context(model="m", id="a" * 24)
ASKED = Conversation(
    messages=(Message("user", (Text("Hello"),)),), model="claude-2.1", is_completion=True
)


def prompt(*messages: tuple[str, str], is_completion: bool = False) -> Any:
    said = tuple(Message(role, (Text(text),)) for role, text in messages)  # type: ignore[arg-type]
    asked = replace(ASKED, messages=said, is_completion=is_completion)
    return COMPLETE.render_request(asked).body["prompt"]


def test_a_prompt_becomes_a_turn() -> None:
    assert COMPLETE.render_request(ASKED).body == {
        "model": "claude-2.1",
        "prompt": "\n\nHuman: Hello\n\nAssistant:",
        "max_tokens_to_sample": 4096,
    }


def test_a_prompt_that_has_turns_stays_as_it_is() -> None:
    text = "\n\nHuman: Hello\n\nAssistant: Well"
    assert prompt(("user", text), is_completion=True) == text
    assert prompt(("user", text.strip()), is_completion=True) == text


def test_a_conversation_becomes_turns() -> None:
    found = prompt(("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "Ha"))
    assert found == ("\n\nBe brief.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Ha\n\nAssistant:")


def test_what_the_assistant_said_last_is_continued() -> None:
    assert prompt(("user", "Hi"), ("assistant", "It is")) == "\n\nHuman: Hi\n\nAssistant: It is"


def test_settings_are_translated_and_the_others_named() -> None:
    settings = {"max_tokens": 9, "stop": ["END"], "user": "u", "temperature": 2, "n": 1, "echo": 1}
    asked = replace(
        ASKED,
        settings=settings,
        stream=True,
        output=OutputFormat(),
        reasoning=Reasoning(effort="low"),
        extra={"top_k": 3},
    )
    rendered = COMPLETE.render_request(asked)
    assert rendered.body == {
        "model": "claude-2.1",
        "prompt": "\n\nHuman: Hello\n\nAssistant:",
        "max_tokens_to_sample": 9,
        "stream": True,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "temperature": 1,
        "top_k": 3,
    }
    assert rendered.dropped == ("echo", "reasoning_effort", "response_format", "temperature")


def test_thoughts_are_left_out_and_refusals_said() -> None:
    turn = Message("assistant", (Thinking("Hm."), Refusal("No.")))
    asked = replace(ASKED, messages=(*ASKED.messages, turn), is_completion=False)
    body = COMPLETE.render_request(asked).body
    assert body["prompt"] == "\n\nHuman: Hello\n\nAssistant: No."


@pytest.mark.parametrize("block", [Media(kind="image", url="https://e.com"), ToolCall("a", "f")])
def test_only_text_can_be_said(block: Block) -> None:
    asked = replace(ASKED, messages=(Message("user", (block,)),))
    with pytest.raises(FormatError, match=r"^messages\[0\]\.content\[0\]: expected text"):
        COMPLETE.render_request(asked)


def test_tools_are_an_error() -> None:
    with pytest.raises(FormatError, match=r"^tools: expected none"):
        COMPLETE.render_request(replace(ASKED, tools=(Tool(name="f"),)))


def test_a_client_s_prompt_is_cut_into_turns() -> None:
    body = {
        "prompt": "Be brief.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Ha\n\nAssistant:",
        "max_tokens_to_sample": 5,
        "model": "claude-2.1",
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "top_k": 3,
        "stream": True,
        "temperature": None,
    }
    assert COMPLETE.parse_request(body) == Conversation(
        messages=(
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("Hi"),)),
            Message("assistant", (Text("Ho"),)),
            Message("user", (Text("Ha"),)),
        ),
        model="claude-2.1",
        stream=True,
        settings={"max_tokens": 5, "stop": ["END"], "user": "u", "top_k": 3},
    )


@pytest.mark.parametrize("text", ["Once upon", "\n\nHuman: Once upon\n\nAssistant:"])
def test_one_question_is_a_completion(text: str) -> None:
    found = COMPLETE.parse_request({"prompt": text}, model="m", stream=False)
    assert found == Conversation(
        messages=(Message("user", (Text("Once upon"),)),), model="m", is_completion=True
    )


def test_a_prompt_has_to_be_a_text() -> None:
    with pytest.raises(FormatError, match=r"^prompt: expected a string"):
        COMPLETE.parse_request({"prompt": ["a"]})


# https://docs.anthropic.com/en/api/complete
BODY = {
    "type": "completion",
    "id": "compl_018",
    "completion": " Hello!",
    "stop_reason": "stop_sequence",
    "stop": "\n\nHuman:",
    "model": "claude-2.1",
}


def test_an_answer_is_read() -> None:
    assert COMPLETE.parse_answer(BODY) == [
        Started("compl_018", "claude-2.1"),
        TextPiece(" Hello!"),
        Finished("stop"),
    ]


@pytest.mark.parametrize(
    ("reason", "stop", "end"),
    [
        ("max_tokens", None, Finished("length")),
        ("stop_sequence", "END", Finished("stop", "END")),
    ],
)
def test_why_an_answer_ended(reason: str, stop: str | None, end: Finished) -> None:
    body = {**BODY, "stop_reason": reason, "stop": stop}
    assert COMPLETE.parse_answer(body)[-1] == end
    answer = Answer(choices=(Choice((Text("x"),), end.reason, end.stop_sequence),))
    rendered: Any = COMPLETE.render_answer(answer, CONTEXT)
    assert (rendered["stop_reason"], rendered["stop"]) == (reason, stop)


def test_an_answer_is_written() -> None:
    said = (Thinking("Hm."), Text("Hi"), Refusal(" no"))
    assert COMPLETE.render_answer(Answer(choices=(Choice(said),)), CONTEXT) == {
        "type": "completion",
        "id": "compl_" + "a" * 24,
        "completion": "Hi no",
        "stop_reason": "stop_sequence",
        "stop": "\n\nHuman:",
        "model": "m",
    }
