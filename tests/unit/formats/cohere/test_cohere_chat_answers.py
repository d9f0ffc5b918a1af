"""Answers of Cohere's chat, in one piece and as streams, read and written."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cohere.v2.types import V2ChatResponse, V2ChatStreamResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.cohere import CHAT
from kong_ai_proxy.formats.conversation import Media, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
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
    pieces,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.cohere import judge

CONTEXT = Context(model="command-a", id="abcdefghijklmnopqrstuvwx", now=1)
STREAMS = ["text.sse", "tools.sse", "thinking.sse", "citations.sse"]


def usage(prompt: int, completion: int, **details: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_details=details,
    )


def read(*chunks: bytes) -> list[Delta]:
    return strategies.read(CHAT.reader(), list(chunks))


def event(**members: object) -> bytes:
    return b"data: " + orjson.dumps(members) + b"\n\n"


def written(deltas: list[Delta]) -> bytes:
    writer = CHAT.writer(CONTEXT)
    return b"".join([writer.feed([delta]) for delta in deltas]) + writer.end()


def events(data: bytes) -> list[dict[str, Any]]:
    """Of a written stream; each is one of the library's types and has its type as its name."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        *names, line = block.split("\n")
        if line == "data: [DONE]":
            continue
        value = orjson.loads(line.removeprefix("data: "))
        assert names == [f"event: {value['type']}"]
        judge.check(V2ChatStreamResponse, value)
        found.append(value)
    return found


# ---- whole answers


def test_a_whole_answer_is_read_with_what_was_billed() -> None:
    answer = collect(CHAT.parse_answer(judge.fixture("answers.json", "text")))
    assert answer.id == "c14c80c3-18eb-4519-9460-6c92edd8cfb4"
    assert answer.choices == (Choice((Text("LLMs stand for Large Language Models."),)),)
    # 64 of 71 came from the cache, of which 5 were billed.
    assert answer.usage == usage(5, 418, cached_tokens=5)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("thinking_before_calls", Thinking("I will first find the sales summary.")),
        ("plan_before_calls", Text("I will search for the weather in Toronto.")),
    ],
)
def test_what_is_said_before_calls_is_kept(name: str, first: object) -> None:
    body = judge.fixture("answers.json", name)
    choice = collect(CHAT.parse_answer(body)).choices[0]
    assert choice.said[0] == first
    assert [call.id for call in choice.calls] == [c["id"] for c in body["message"]["tool_calls"]]
    assert choice.finish_reason == "tool_calls"


def test_calls_decide_the_finish_reason_where_the_provider_says_complete() -> None:
    body = judge.fixture("answers.json", "plan_before_calls") | {"finish_reason": "COMPLETE"}
    assert collect(CHAT.parse_answer(body)).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "status"), [("ERROR", 500), ("TIMEOUT", 504), ("USER_CANCEL", 499)]
)
def test_an_answer_that_failed_is_an_error(reason: str, status: int) -> None:
    body = judge.fixture("answers.json", "text") | {"finish_reason": reason}
    last = CHAT.parse_answer(body)[-1]
    assert isinstance(last, Failed)
    assert (last.error.type, last.error.status) == (reason, status)


def test_an_error_that_is_a_whole_answer_is_one() -> None:
    assert CHAT.parse_answer({"id": "a", "message": "no"}) == [Failed(ProviderError("no"))]


@pytest.mark.parametrize("value", [None, [], {}, {"message": None}, "text"])
def test_something_else_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        CHAT.parse_answer(value)


def test_citations_are_told_beside_the_usage() -> None:
    body = judge.fixture("answers.json", "text")
    body["message"]["citations"] = [{"start": 0, "end": 4, "text": "LLMs"}]
    used = CHAT.parse_answer(body)[-1]
    assert isinstance(used, Used)
    assert used.extra == {"citations": [{"start": 0, "end": 4, "text": "LLMs"}]}


def test_a_whole_answer_is_written_for_coheres_library() -> None:
    calls = (ToolCall("c1", "a", '{"b":1}'), ToolCall("", "c", "{}"))
    said = (Thinking("hm", "signed"), Text("I look."), *calls)
    token = {"token": "I", "logprob": -0.5, "bytes": [73], "top_logprobs": []}
    choice = Choice(said, "tool_calls", logprobs=(token,))
    answer = Answer(id="chatcmpl-1", choices=(choice,), usage=usage(9, 3, cached_tokens=4))
    body = CHAT.render_answer(answer, CONTEXT)
    judge.check(V2ChatResponse, body)
    found = judge.client(orjson.dumps(body)).v2.chat(model="m", messages=[])
    assert [block.type for block in found.message.content] == ["thinking", "text"]
    assert found.message.tool_calls[0].function.arguments == '{"b":1}'
    assert found.message.tool_calls[1].id == f"call_{CONTEXT.id}_1"
    assert found.finish_reason == "TOOL_CALL"
    assert found.logprobs[0].logprobs == [-0.5]
    assert (found.usage.billed_units.input_tokens, found.usage.cached_tokens) == (9, 4)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (Choice((Text("a"),)), "COMPLETE"),
        (Choice((Text("a"),), "length"), "MAX_TOKENS"),
        (Choice((Text("a"),), "stop", "END"), "STOP_SEQUENCE"),
        (Choice((Text("a"),), "content_filter"), "ERROR"),
    ],
)
def test_finish_reasons_are_coheres(choice: Choice, reason: str) -> None:
    body: Any = CHAT.render_answer(Answer(choices=(choice,)), CONTEXT)
    assert body["finish_reason"] == reason
    last = events(written(list(pieces(Answer(choices=(choice,))))))[-1]
    assert last["delta"]["finish_reason"] == reason


def test_an_answer_has_an_id_whoever_gave_it() -> None:
    body: Any = CHAT.render_answer(Answer(), CONTEXT)
    assert (body["id"], body["message"]["content"]) == (CONTEXT.id, [])


# ---- streams, read


def test_a_stream_of_text_is_read() -> None:
    assert strategies.joined(read(judge.stream("text.sse"))) == [
        Started("29f14a5a-11de-4cae-9800-25e4747408ea"),
        TextPiece("LLMs – größer."),
        Finished("stop"),
        Used(usage(5, 26)),
    ]


def test_a_stream_of_calls_is_read_with_its_plan() -> None:
    deltas = read(judge.stream("tools.sse"))
    choice = collect(deltas).choices[0]
    assert choice.said == (
        Text("I will look up both cities."),
        ToolCall("get_weather_p1t92w7gfgq7", "get_weather", '{\n    "location": "Madrid"\n}'),
        ToolCall("get_weather_ay6nmvjgp9vn", "get_weather", '{\n    "location": "Brasilia"\n}'),
    )
    assert deltas[-2:] == [Finished("tool_calls"), Used(usage(37, 28))]


def test_a_stream_of_thoughts_is_read() -> None:
    choice = collect(read(judge.stream("thinking.sse"))).choices[0]
    assert choice.said == (Thinking("Two sisters and Alice."), Text("Three."))
    assert choice.finish_reason == "length"


def test_logprobs_and_citations_of_a_stream_are_kept() -> None:
    deltas = read(judge.stream("citations.sse"))
    token = {"token": "gym memberships", "logprob": -0.75, "top_logprobs": []}
    assert Logprobs([token | {"bytes": list(b"gym memberships")}]) in deltas
    used = deltas[-1]
    assert isinstance(used, Used)
    assert [each["text"] for each in used.extra["citations"]] == ["gym memberships"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_wherever_it_is_cut(name: str) -> None:
    data = judge.stream(name)
    whole = read(data)
    output = written(whole)
    for chunks in strategies.halves(data):
        deltas = read(*chunks)
        assert deltas == whole
        assert written(deltas) == output


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(STREAMS).map(judge.stream).flatmap(strategies.cuts))
def test_a_stream_is_the_same_in_random_pieces(chunks: list[bytes]) -> None:
    assert read(*chunks) == read(b"".join(chunks))


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stream_is_the_same_with_other_line_ends(end: bytes) -> None:
    data = judge.stream("tools.sse")
    assert read(data.replace(b"\n", end)) == read(data)


def test_events_without_an_index_are_read() -> None:
    # The reference's stream about an image has none.
    deltas = read(
        event(type="content-delta", delta={"message": {"content": {"text": "The"}}}),
        event(type="tool-call-start", delta={"message": {"tool_calls": {"id": "a"}}}),
        event(type="tool-call-start", delta={"message": {"tool_calls": {"id": "b"}}}),
        event(
            type="tool-call-delta",
            delta={"message": {"tool_calls": {"function": {"arguments": "{}"}}}},
        ),
        event(type="message-end", delta={"finish_reason": "COMPLETE"}),
    )
    assert deltas == [
        Started(),
        TextPiece("The"),
        CallStarted(0, "a", ""),
        CallStarted(1, "b", ""),
        CallArguments(1, "{}"),
        Finished("tool_calls"),
    ]


def test_the_terminal_event_counts_without_its_blank_line() -> None:
    data = judge.stream("tools.sse")
    assert read(data.rstrip(b"\n")) == read(data)


def test_nothing_is_read_after_the_end() -> None:
    data = judge.stream("text.sse")
    assert read(data + data) == read(data)


def failed(deltas: list[Delta]) -> ProviderError:
    *others, last = deltas
    assert not any(isinstance(delta, Failed | Finished) for delta in others)
    assert isinstance(last, Failed)
    return last.error


def test_a_stream_that_ends_too_soon_has_failed() -> None:
    data = judge.stream("text.sse")
    assert "message-end" in failed(read(data[: data.index(b"event: message-end")])).message
    assert "message-end" in failed(read(b"")).message


def test_an_error_at_the_end_of_a_stream_is_one() -> None:
    start = event(type="message-start", id="a", delta={})
    end = event(type="message-end", delta={"finish_reason": "ERROR", "error": "out of memory"})
    assert failed(read(start, end)) == ProviderError("out of memory", "ERROR", 500)


def test_an_error_without_a_finish_reason_is_one() -> None:
    assert failed(read(event(type="message-end", delta={"error": "oh"}))).message == "oh"


@pytest.mark.parametrize(
    "body", [b'{"message":"too many","id":"a"}', b'data: {"message":"too many"}\n\n']
)
def test_an_error_object_in_place_of_a_stream_is_one(body: bytes) -> None:
    for chunks in strategies.halves(body):
        assert failed(read(*chunks)).message == "too many"


@pytest.mark.parametrize(
    "data",
    [
        b"data: {broken\n\n",
        b'data: {"type":"content-delta","delta":{"message":{"content":{"text":"\xff"}}}}\n\n',
        b"<html>bad gateway</html>",
        b"data: " + b"x" * (1 << 20) + b"\n\n",
        b"x" * (1 << 21),
    ],
)
def test_a_stream_that_cannot_be_read_has_failed(data: bytes) -> None:
    assert failed(read(data)).message


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        1,
        {},
        {"type": []},
        {"type": "new-event", "delta": {}},
        {"type": "debug", "prompt": "<START>"},
        {"type": "content-delta"},
        {"type": "content-delta", "delta": None},
        {"type": "content-delta", "delta": {"message": {"content": None}}},
        {"type": "content-delta", "delta": {"message": {"content": {"text": 1}}}},
        {"type": "content-start", "index": "x", "delta": {"message": {"content": []}}},
        {"type": "tool-call-delta", "delta": {"message": {"tool_calls": None}}},
        {"type": "tool-plan-delta", "delta": []},
    ],
)
def test_events_that_say_nothing_are_left_out(value: object) -> None:
    data = b"data: " + orjson.dumps(value) + b"\n\n"
    assert read(data + judge.stream("text.sse")) == read(judge.stream("text.sse"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_a_reader_never_raises(data: bytes) -> None:
    read(data)
    read(b"data: " + data + b"\n\n")


# ---- streams, written


@settings(max_examples=60, deadline=None)
@given(strategies.delta_lists(choices=1, stop_sequences=True))
def test_a_stream_tells_what_the_whole_answer_does(deltas: list[Delta]) -> None:
    answer = collect(deltas)
    body: Any = orjson.loads(orjson.dumps(CHAT.render_answer(answer, CONTEXT)))
    judge.check(V2ChatResponse, body)
    found = events(written(deltas))
    assert accumulated(found) == body


def accumulated(found: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream put together as the reference tells it, which also checks its order."""
    start, *rest, end = found
    assert (start["type"], end["type"]) == ("message-start", "message-end")
    message: dict[str, Any] = {"role": start["delta"]["message"]["role"], "content": []}
    calls: list[dict[str, Any]] = []
    logprobs = []
    opened: dict[str, int | None] = {"content": None, "call": None}
    for each in rest:
        kind, index = each["type"], each["index"]
        delta = each.get("delta", {}).get("message", {})
        if kind == "content-start":
            assert opened["content"] is None
            assert index == len(message["content"])
            opened["content"] = index
            message["content"].append(dict(delta["content"]))
        elif kind == "content-delta" and "logprobs" in each:
            logprobs.append(each["logprobs"])
        elif kind == "content-delta":
            assert opened["content"] == index
            ((name, text),) = delta["content"].items()
            message["content"][index][name] += text
        elif kind == "content-end":
            assert opened["content"] == index
            opened["content"] = None
        elif kind == "tool-call-start":
            assert opened["call"] is None
            assert index == len(calls)
            opened["call"] = index
            calls.append(delta["tool_calls"])
        elif kind == "tool-call-delta":
            assert opened["call"] == index
            arguments = delta["tool_calls"]["function"]["arguments"]
            calls[index]["function"]["arguments"] += arguments
        else:
            assert (kind, opened["call"]) == ("tool-call-end", index)
            opened["call"] = None
    assert set(opened.values()) == {None}
    return {
        "id": start["id"],
        "message": message | ({"tool_calls": calls} if calls else {}),
        **end["delta"],
        **({"logprobs": logprobs} if logprobs else {}),
    }


def test_a_written_stream_is_what_coheres_library_reads() -> None:
    data = written(read(judge.stream("tools.sse")))
    stream = judge.client(data, "text/event-stream").v2.chat_stream(model="m", messages=[])
    found = list(stream)
    assert found[0].id == "fba98ad3-e5a1-413c-a8de-84fbf9baabf7"
    starts = [each for each in found if each.type == "tool-call-start"]
    assert [each.delta.message.tool_calls.id for each in starts] == [
        "get_weather_p1t92w7gfgq7",
        "get_weather_ay6nmvjgp9vn",
    ]
    assert found[-1].delta.usage.billed_units.output_tokens == 28
    assert data.endswith(b"data: [DONE]\n\n")


def test_a_call_begins_before_the_answer_is_complete() -> None:
    writer = CHAT.writer(CONTEXT)
    first = writer.feed([CallStarted(0, "a", "f"), CallArguments(0, "{}")])
    second = writer.feed([CallStarted(1, "b", "g"), CallArguments(1, '{"x":')])
    assert b"tool-call-start" in first
    assert second.index(b"tool-call-end") < second.index(b"tool-call-start")
    assert b'{\\"x\\":' in second


def test_a_failure_is_the_end_and_no_good_one() -> None:
    writer = CHAT.writer(CONTEXT)
    data = writer.feed([Started("a"), TextPiece("hi"), Failed(ProviderError("overloaded"))])
    last = events(data)[-1]
    assert last["delta"] == {"finish_reason": "ERROR", "error": "overloaded"}
    assert writer.feed([TextPiece("more"), Finished("stop")]) == b""
    assert writer.end() == b""
    assert b"[DONE]" not in data


def test_a_picture_in_the_answer_is_an_error_and_not_lost() -> None:
    image = Media(kind="image", data="AAAA", media_type="image/png")
    with pytest.raises(FormatError, match="image"):
        CHAT.render_answer(Answer(choices=(Choice((image,)),)), CONTEXT)
    (end,) = events(CHAT.writer(CONTEXT).feed([MediaPiece(image)]))
    assert "image" in end["delta"]["error"]


def test_other_alternatives_are_left_out() -> None:
    deltas: list[Delta] = [TextPiece("a"), TextPiece("b", 1), ThinkingPiece("c", 2)]
    answer = collect(deltas)
    assert accumulated(events(written(deltas))) == CHAT.render_answer(answer, CONTEXT)


# ---- errors


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"id":"a","message":"invalid api token"}', "invalid api token"),
        (b'{"error":"no"}', "no"),
        (b"upstream connect error", "upstream connect error"),
        (b"<html></html>", "the provider answered with status 429"),
        (b"", "the provider answered with status 429"),
        (b"[]", "[]"),
    ],
)
def test_an_error_is_read_whatever_it_is(body: bytes, message: str) -> None:
    assert CHAT.parse_error(429, body) == ProviderError(message, status=429)


def test_an_error_is_written_for_coheres_library() -> None:
    body = orjson.dumps(CHAT.render_error(ProviderError("too many", status=429)))
    with pytest.raises(Exception, match="too many"):
        judge.client(body, status=400).v2.chat(model="m", messages=[])
