"""Answers of Ollama's own API, whole and as streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import ChatProvider
from kong_ai_proxy.formats.conversation import Media, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.ollama import CHAT, EMBED, GENERATE
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.strategies import cuts, halves, read

FIXTURES = Path(__file__).parent / "fixtures"
ANSWERS = json.loads((FIXTURES / "chat.json").read_text())["answers"]
STREAMS: list[tuple[str, ChatProvider]] = [
    ("chat_stream", CHAT),
    ("thinking_stream", CHAT),
    ("generate_stream", GENERATE),
    ("error_stream", CHAT),
]


def stream(name: str) -> bytes:
    return (FIXTURES / f"{name}.ndjson").read_bytes()


def line(**members: Any) -> bytes:
    return orjson.dumps({"model": "m", **members}) + b"\n"


def said(**message: Any) -> bytes:
    return line(message={"role": "assistant", **message}, done=False)


DONE = line(done=True, done_reason="stop")


def deltas(*lines: bytes) -> list[Delta]:
    return read(CHAT.reader(), list(lines))


def failure(found: list[Delta]) -> str:
    last = found[-1]
    assert isinstance(last, Failed)
    assert not any(isinstance(delta, Finished) for delta in found)
    return last.error.message


def test_the_references_stream() -> None:
    assert deltas(stream("chat_stream")) == [
        Started("", "llama3.2", 1691164339),
        TextPiece("The"),
        TextPiece(" sky — 青い"),
        Finished("stop"),
        Used(Usage(prompt_tokens=26, completion_tokens=282, total_tokens=308)),
    ]


def test_thoughts_text_and_parallel_calls_of_a_stream() -> None:
    answer = collect(deltas(stream("thinking_stream")))
    assert answer.choices[0].said == (
        Thinking("The user asks for the weather."),
        Text("Let me look."),
        ToolCall("", "get_current_weather", '{"format":"celsius","location":"Toronto"}'),
        ToolCall("", "get_time", "{}"),
    )
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_continued_prompt() -> None:
    answer = collect(read(GENERATE.reader(), [stream("generate_stream")]))
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("The sky", "length")


def test_an_error_inside_a_stream() -> None:
    found = deltas(stream("error_stream"))
    assert [delta for delta in found if isinstance(delta, TextPiece)] == [
        TextPiece(" Yes"),
        TextPiece("."),
    ]
    assert failure(found) == "an error was encountered while running the model"


@pytest.mark.parametrize(("name", "codec"), STREAMS)
def test_split_at_every_byte(name: str, codec: ChatProvider) -> None:
    whole = read(codec.reader(), [stream(name)])
    for chunks in halves(stream(name)):
        assert read(codec.reader(), chunks) == whole


@pytest.mark.parametrize(("name", "codec"), STREAMS)
@given(data=st.data())
def test_random_chunks(name: str, codec: ChatProvider, data: st.DataObject) -> None:
    chunks = data.draw(cuts(stream(name)))
    assert read(codec.reader(), chunks) == read(codec.reader(), [stream(name)])


@pytest.mark.parametrize("name", ["chat_stream", "thinking_stream"])
def test_a_last_line_counts_without_its_end(name: str) -> None:
    assert deltas(stream(name).rstrip(b"\n")) == deltas(stream(name))


def test_a_stream_that_ends_too_soon_has_failed_wherever_it_ends() -> None:
    data = stream("chat_stream").rstrip(b"\n")
    for length in range(len(data)):
        assert "before the answer was complete" in failure(deltas(data[:length]))


@pytest.mark.parametrize("bad", [b"no json\n", b'{"a":"\xff"}\n', b"[1]\n", b"null\n", b'"a"\n'])
def test_lines_that_are_no_objects(bad: bytes) -> None:
    found = deltas(said(content="a"), bad, said(content="b"), DONE)
    assert "not a JSON object" in failure(found)
    assert TextPiece("b") not in found


def test_an_endless_line_fails() -> None:
    reader = CHAT.reader()
    found: list[Delta] = []
    for _ in range(34):
        found += reader.feed(b"x" * (1 << 20))
    assert "longer than" in failure(found + reader.end())


def test_nothing_follows_the_end() -> None:
    assert deltas(DONE, said(content="late"), DONE, b"rubbish\n") == deltas(DONE)


@pytest.mark.parametrize(
    "message",
    [
        {"content": None},
        {"content": 3, "thinking": []},
        {"content": "", "tool_calls": None},
        {"content": "", "tool_calls": [None, 3]},
        {"content": "", "images": [None]},
    ],
)
def test_odd_members_are_nothing(message: dict[str, object]) -> None:
    assert deltas(said(**message), DONE) == [Started("", "m"), Finished("stop")]


def test_unknown_lines_are_nothing() -> None:
    assert deltas(line(status="pulling manifest"), DONE) == [Started("", "m"), Finished("stop")]


def test_ids_and_arguments_as_recent_and_odd_versions_send_them() -> None:
    calls = [
        {"id": "call_x1", "function": {"index": 0, "name": "f", "arguments": {"a": []}}},
        {"function": {"name": "g", "arguments": '{"b":1}'}},
        {"function": {"name": "h"}},
    ]
    found = deltas(said(content="", tool_calls=calls), DONE)
    assert found[1:-1] == [
        CallStarted(0, "call_x1", "f"),
        CallArguments(0, '{"a":[]}'),
        CallStarted(1, "", "g"),
        CallArguments(1, '{"b":1}'),
        CallStarted(2, "", "h"),
        CallArguments(2, "{}"),
    ]


def test_a_cut_off_answer_with_calls_says_length() -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    found = deltas(said(content="", tool_calls=[call]), line(done=True, done_reason="length"))
    assert found[-1] == Finished("length")


def test_log_probabilities_and_images() -> None:
    logprobs: list[object] = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    found = deltas(
        line(message={"content": "a", "images": ["AAAA"]}, logprobs=logprobs, done=False), DONE
    )
    assert found[1:-1] == [
        TextPiece("a"),
        MediaPiece(Media(kind="image", data="AAAA")),
        Logprobs(logprobs),
    ]


@pytest.mark.parametrize(
    ("created_at", "seconds"),
    [
        ("2023-08-04T08:52:19.385406455-07:00", 1691164339),
        ("2023-12-12T14:13:43.416799Z", 1702390423),
        ("2023-12-12T14:13:43", 1702390423),
        ("yesterday", 0),
        ("0001-01-01T00:00:00Z", 0),
        (5, 0),
        (None, 0),
    ],
)
def test_the_time_of_an_answer(created_at: object, seconds: int) -> None:
    assert deltas(line(created_at=created_at, done=True))[0] == Started("", "m", seconds)


# --- in one piece ---


def test_the_references_answer() -> None:
    assert CHAT.parse_answer(ANSWERS["plain"]) == [
        Started("", "llama3.2", 1702390423),
        TextPiece("Hello! How are you today?"),
        Finished("stop"),
        Used(Usage(prompt_tokens=26, completion_tokens=298, total_tokens=324)),
    ]


def test_the_references_answer_with_tools() -> None:
    found = CHAT.parse_answer(ANSWERS["tools"])
    assert found[1:4] == [
        CallStarted(0, "", "get_current_weather"),
        CallArguments(0, '{"format":"celsius","location":"Paris, FR"}'),
        Finished("tool_calls"),
    ]


def test_a_loaded_model_has_nothing_to_say() -> None:
    assert CHAT.parse_answer(ANSWERS["loaded"]) == [
        Started("", "llama3.2", 1726175849),
        Finished("stop"),
    ]


def test_a_whole_answer_reads_as_the_stream_of_one_line_does() -> None:
    for answer in ANSWERS.values():
        assert deltas(orjson.dumps(answer) + b"\n") == CHAT.parse_answer(answer)


def test_thoughts_come_first() -> None:
    found = GENERATE.parse_answer({"response": "b", "thinking": "a", "done": True})
    assert found[1:3] == [ThinkingPiece("a"), TextPiece("b")]


def test_an_error_as_a_whole_answer() -> None:
    found = CHAT.parse_answer({"error": "model failed"})
    assert found == [Failed(ProviderError("model failed"))]


@pytest.mark.parametrize("value", [None, [], "text", {}, {"response": "of generate"}])
def test_what_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        CHAT.parse_answer(value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (b'{"error":{"message":"no","type":"api_error"}}', "no"),
        (b"404 page not found", "404 page not found"),
        (b"<html></html>", "the provider answered with status 404"),
        (b"", "the provider answered with status 404"),
    ],
)
def test_errors(body: bytes, message: str) -> None:
    error = CHAT.parse_error(404, body)
    assert (error.message, error.status) == (message, 404)
    assert GENERATE.parse_error(404, body) == EMBED.parse_error(404, body) == error


# --- embeddings: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings ---


def test_embeddings() -> None:
    vectors = [[0.010071029, -0.0017594862], [-0.0098027075, 0.06042469]]
    answer = EMBED.parse_answer(
        {"model": "all-minilm", "embeddings": vectors, "prompt_eval_count": 8}
    )
    assert answer.vectors == tuple(vectors)
    assert answer.vectors[0] is vectors[0]
    assert answer.model == "all-minilm"
    assert answer.usage == Usage(prompt_tokens=8, total_tokens=8)


@pytest.mark.parametrize("value", [None, {}, {"embeddings": None}, {"embeddings": [1]}])
def test_what_are_no_embeddings(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        EMBED.parse_answer(value)


def test_an_error_in_place_of_embeddings() -> None:
    with pytest.raises(FormatError, match="input length exceeds"):
        EMBED.parse_answer({"error": "input length exceeds maximum context length"})
