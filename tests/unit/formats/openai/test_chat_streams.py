"""Streams of chat completions, as OpenAI and the servers compatible with it send them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.deltas import (
    AnswerFailed,
    Delta,
    Failed,
    Started,
    TextPiece,
    Used,
    collect,
)
from kong_ai_proxy.formats.openai.chat import CHAT
from kong_ai_proxy.formats.openai.completions import COMPLETIONS
from tests.unit.formats import strategies
from tests.unit.formats.openai import sdk

FIXTURES = Path(__file__).parent / "fixtures"
STREAMS = sorted(path.stem for path in FIXTURES.glob("*.sse"))
CONTEXT = Context(model="asked", id="AbC123", now=1700000000, wants_usage=True)


def stream(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def read(name: str) -> list[Delta]:
    return strategies.read(CHAT.reader(), [stream(name)])


def read_bytes(*chunks: bytes) -> list[Delta]:
    return strategies.read(CHAT.reader(), list(chunks))


def written(deltas: list[Delta], context: Context = CONTEXT) -> bytes:
    writer = CHAT.writer(context)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_reads_and_writes_the_same_wherever_it_is_split(name: str) -> None:
    codec = COMPLETIONS if name == "completion" else CHAT
    data = stream(name)
    deltas = strategies.read(codec.reader(), [data])
    whole = codec.writer(CONTEXT)
    expected = whole.feed(deltas) + whole.end()
    for halves in strategies.halves(data):
        reader, writer = codec.reader(), codec.writer(CONTEXT)
        found = [reader.feed(half) for half in halves] + [reader.end()]
        assert [delta for each in found for delta in each] == deltas
        assert b"".join(writer.feed(each) for each in found) + writer.end() == expected


@given(st.data())
def test_a_stream_reads_the_same_in_random_pieces(data: st.DataObject) -> None:
    whole = stream(data.draw(st.sampled_from([name for name in STREAMS if name != "completion"])))
    pieces = data.draw(strategies.cuts(whole))
    assert strategies.read(CHAT.reader(), pieces) == read_bytes(whole)


def test_text_and_usage_are_read() -> None:
    answer = collect(read("text"))
    assert (answer.id, answer.model, answer.created) == ("chatcmpl-123", "gpt-4o-mini", 1694268190)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Grüß dich 👋", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_details["cached_tokens"] == 4
    assert answer.usage.completion_details["reasoning_tokens"] == 2


def test_parallel_calls_keep_their_ids_and_arguments() -> None:
    (choice,) = collect(read("tools")).choices
    assert choice.finish_reason == "tool_calls"
    assert [(call.id, call.name, call.arguments) for call in choice.calls] == [
        ("call_DdmO9pD3xa9XTPNJ32zg2hcA", "get_weather", '{"location":"Paris, France"}'),
        ("call_Vz8m3FK7", "get_time", '{"zone":"Europe/Paris"}'),
    ]


def test_a_refusal_is_read() -> None:
    (choice,) = collect(read("refusal")).choices
    assert choice.refusal == "I'm sorry, I cannot assist with that request."


def test_alternatives_are_kept_apart() -> None:
    first, second = collect(read("choices")).choices
    assert (first.text, first.finish_reason) == ("Heads", "stop")
    assert (second.text, second.finish_reason) == ("Tails", "length")


def test_log_probabilities_are_read() -> None:
    (choice,) = collect(read("logprobs")).choices
    assert [entry["token"] for entry in choice.logprobs if isinstance(entry, dict)] == ["Hi", "!"]


def test_azures_chunks_without_choices_say_nothing() -> None:
    answer = collect(read("azure"))
    assert (answer.id, answer.model) == ("chatcmpl-9abc", "gpt-4o-2024-08-06")
    assert answer.choices[0].text == "Color"
    assert answer.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("name", "thought", "text", "reason"),
    [
        ("deepseek_reasoner", "9.11 or 9.8?", "9.8 is greater.", "stop"),
        ("mistral_thinking", "Let me count.", "Three r's.", "length"),
        ("cerebras_reasoning", "We need to greet.", "Hello", "stop"),
    ],
)
def test_thoughts_are_read_under_each_of_their_names(
    name: str, thought: str, text: str, reason: str
) -> None:
    (choice,) = collect(read(name)).choices
    assert (choice.thinking, choice.text, choice.finish_reason) == (thought, text, reason)


def test_usage_counts_also_in_a_chunk_with_choices() -> None:
    answer = collect(read("usage_with_choices"))
    assert answer.choices[0].text == "AB"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        (
            "mistral_tools",
            [
                ("D681PevKs", "retrieve_payment_status", '{"transaction_id": "T1001"}'),
                ("D681PevKt", "retrieve_payment_date", "{}"),
            ],
        ),
        ("ollama_tools", [("call_ab12", "get_weather", '{"city":"Oslo"}')]),
        (
            "gemini_tools",
            [
                ("function-call-1", "check_flight", '{"flight":"AA100"}'),
                ("function-call-2", "book_taxi", '{"time":"10 AM"}'),
            ],
        ),
        ("function_call", [("", "get_weather", '{"city":"Rome"}')]),
    ],
)
def test_calls_of_other_servers_are_read(name: str, calls: list[tuple[str, str, str]]) -> None:
    (choice,) = collect(read(name)).choices
    assert [(call.id, call.name, call.arguments) for call in choice.calls] == calls
    assert choice.finish_reason == "tool_calls"


def test_a_thought_signature_stays_with_its_call() -> None:
    (choice,) = collect(read("gemini_tools")).choices
    assert [call.signature for call in choice.calls] == ["c2lnQQ==", ""]


def test_a_stream_without_done_is_complete_where_its_choices_have_finished() -> None:
    (choice,) = collect(read("no_done")).choices
    assert (choice.text, choice.finish_reason, choice.stop_sequence) == ("Hi", "stop", "END")


def test_a_stream_with_done_is_complete_without_a_finish_reason() -> None:
    deltas = read_bytes(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n')
    assert collect(deltas).choices[0].finish_reason == "stop"


def test_a_stream_with_neither_has_failed() -> None:
    data = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    *_, last = read_bytes(data)
    assert isinstance(last, Failed)
    assert last.error.message == "the provider's stream ended before its answer was complete"
    assert last.error.status == 502


def test_one_unfinished_alternative_is_a_stream_that_has_failed() -> None:
    *_, last = read_bytes(
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"},'
        b'{"index":1,"delta":{"content":"x"}}]}\n\n'
    )
    assert isinstance(last, Failed)


@pytest.mark.parametrize("ending", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n"])
def test_done_counts_without_its_blank_line(ending: bytes) -> None:
    deltas = read_bytes(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', ending)
    assert collect(deltas).choices[0].text == "Hi"


@pytest.mark.parametrize(
    ("name", "message", "kind", "status"),
    [
        ("error", "Rate limit exceeded", "", 429),
        ("vllm_error", "EngineCore encountered an issue", "InternalServerError", 500),
    ],
)
def test_an_error_in_a_stream_ends_it(name: str, message: str, kind: str, status: int) -> None:
    *before, last = read(name)
    assert not any(isinstance(delta, Failed) for delta in before)
    assert isinstance(last, Failed)
    assert (last.error.message, last.error.type, last.error.status) == (message, kind, status)


@pytest.mark.parametrize(
    ("body", "message", "status"),
    [
        (b'{"error":{"message":"no","type":"rate_limit_error"}}', "no", 429),
        (b'{"error":"overloaded"}', "overloaded", 0),
        (b'{\n  "error": {\n    "message": "no",\n    "code": 503\n  }\n}\n', "no", 503),
        (b'[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', "bad", 400),
        (b'data: {"object":"error","message":"m","code":400}\n\n', "m", 400),
        (b'event: error\ndata: {"message":"m","type":"server_error"}\n\n', "m", 500),
        (b"event: error\ndata: {}\n\n", "the provider's stream failed", 502),
        (b"data: [DONE]\n\n", "the provider's stream has no answer in it", 502),
        (b"", "the provider's stream ended before its answer was complete", 502),
        (b"<html>no</html>", "the provider's stream ended before its answer was complete", 502),
        (b"data: {nonsense}\n\n", "an event of the provider's stream is not JSON", 502),
        (b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', "not JSON", 502),
    ],
)
def test_a_body_that_is_no_answer_has_failed(body: bytes, message: str, status: int) -> None:
    deltas = read_bytes(body)
    (last,) = deltas
    assert isinstance(last, Failed)
    assert last.error.message.endswith(message) or message in last.error.message
    assert last.error.status == status


def test_an_answer_in_one_piece_is_read_where_a_stream_was_asked_for() -> None:
    body = b'{"id":"a","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}\n'
    assert collect(read_bytes(body)).choices[0].text == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        b": comment\n\n",
        b"data:\n\n",
        b'data: {"choices":null}\n\n',
        b'data: {"choices":[]}\n\n',
        b'data: {"choices":[null,{"delta":null},{"delta":[]}]}\n\n',
        b'data: {"choices":[{"delta":{"content":null,"tool_calls":null},"finish_reason":""}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[null,{},{"function":null}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_details":[{"text":"x"}]}}],"usage":null}\n\n',
        b"event: ping\ndata: not json\n\n",
        b"data: null\n\ndata: 1\n\ndata: []\n\n",
    ],
)
def test_what_says_nothing_is_passed_over(event: bytes) -> None:
    good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    end = b"data: [DONE]\n\n"
    deltas = read_bytes(event, good, event, end)
    assert [delta for delta in deltas if isinstance(delta, TextPiece)] == [TextPiece("Hi")]
    assert not any(isinstance(delta, Failed) for delta in deltas)


def test_nothing_is_read_after_the_end() -> None:
    reader = CHAT.reader()
    reader.feed(stream("text"))
    assert reader.feed(stream("text")) == []
    assert reader.end() == []


def test_an_endless_event_has_failed() -> None:
    reader = CHAT.reader()
    found = reader.feed(b"data: " + b"x" * (33 << 20))
    assert isinstance(found[-1], Failed)
    assert reader.feed(b"x") == []


def test_the_last_usage_counts() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":%d}}\n\n'
    deltas = read_bytes(chunk % 1, chunk % 2, b"data: [DONE]\n\n")
    counts = [delta.usage.completion_tokens for delta in deltas if isinstance(delta, Used)]
    assert counts == [1, 2]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (  # the id in each piece
            ['{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}',
             '{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}'],
            [("a", "f", "{}")],
        ),
        (  # another id in each piece, and no name
            ['{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}',
             '{"index":0,"id":"b","function":{"arguments":"}"}}'],
            [("a", "f", "{}")],
        ),
        (  # no index, whole calls
            ['{"id":"a","function":{"name":"f","arguments":"{}"}}',
             '{"id":"b","function":{"name":"f","arguments":"[]"}}'],
            [("a", "f", "{}"), ("b", "f", "[]")],
        ),
        (  # neither index nor id
            ['{"function":{"name":"f","arguments":"{"}}', '{"function":{"arguments":"}"}}',
             '{"function":{"name":"g","arguments":"{}"}}'],
            [("", "f", "{}"), ("", "g", "{}")],
        ),
        (  # numbered from 1
            ['{"index":1,"id":"a","function":{"name":"f","arguments":"{}"}}',
             '{"index":2,"id":"b","function":{"name":"g","arguments":"{}"}}'],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (  # the name after the id
            ['{"index":0,"id":"a","function":{"name":null}}',
             '{"index":0,"function":{"name":"f","arguments":null}}'],
            [("a", "f", "{}")],
        ),
        (  # arguments as an object
            ['{"index":0,"id":"a","function":{"name":"f","arguments":{"a":[]}}}'],
            [("a", "f", '{"a":[]}')],
        ),
    ],
)  # fmt: skip
def test_calls_come_in_many_shapes(pieces: list[str], expected: list[tuple[str, str, str]]) -> None:
    chunk = 'data: {"choices":[{"index":0,"delta":{"tool_calls":[%s]}}]}\n\n'
    data = "".join(chunk % piece for piece in pieces) + "data: [DONE]\n\n"
    (choice,) = collect(read_bytes(data.encode())).choices
    assert [(call.id, call.name, call.arguments) for call in choice.calls] == expected
    assert choice.finish_reason == "tool_calls"


def test_a_finish_reason_of_failure_is_a_failure() -> None:
    with pytest.raises(AnswerFailed, match="stopped with an error"):
        collect(read_bytes(b'data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n'))


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if name not in ("completion", "error", "vllm_error")]
)
def test_what_is_written_of_a_stream_is_what_was_read(name: str) -> None:
    answer = collect(read(name))
    found = sdk.messages(written(read(name)))
    whole = CHAT.render_answer(answer, CONTEXT)
    sdk.check_chat_answer(whole)
    assert isinstance(whole, dict)
    expected = [
        {"finish_reason": choice["finish_reason"], **choice["message"]}
        for choice in whole["choices"]
    ]
    assert found == [{k: v for k, v in each.items() if v is not None} for each in expected]


def test_a_stream_tells_its_start_before_its_content() -> None:
    assert isinstance(read("deepseek_reasoner")[0], Started)
