"""Streams of providers that speak Anthropic's Messages, or its old completions."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.anthropic import COMPLETE, MESSAGES
from kong_ai_proxy.formats.anthropic import reader as anthropic_reader
from kong_ai_proxy.formats.codec import ChatCodec
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.strategies import cuts, halves, read

FIXTURES = Path(__file__).parent / "fixtures"
STREAMS = ["text", "tools", "thinking", "web_search", "overloaded", "complete"]


def stream(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def codec(name: str) -> ChatCodec:
    return COMPLETE if name == "complete" else MESSAGES


def events(*values: object) -> bytes:
    return b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values)


def deltas(*values: object) -> list[Delta]:
    return read(MESSAGES.reader(), [events(*values)])


def start(**usage: object) -> dict[str, object]:
    return {"type": "message_start", "message": {"id": "m", "model": "c", "usage": usage}}


def stop(reason: str, **usage: object) -> dict[str, object]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def test_text_comes_with_its_usage() -> None:
    found = read(MESSAGES.reader(), [stream("text")])
    first = Usage(
        prompt_tokens=25,
        completion_tokens=1,
        total_tokens=26,
        prompt_details={"cached_tokens": 0},
        service_tier="standard",
    )
    last = Usage(
        prompt_tokens=25,
        completion_tokens=15,
        total_tokens=40,
        prompt_details={"cached_tokens": 0},
        service_tier="standard",
    )
    assert found == [
        Started("msg_01Text", "claude-opus-4-8"),
        Used(first),
        TextPiece("Grüße"),
        TextPiece(", Welt 🌍!"),
        Finished("stop"),
        Used(last),
    ]


def test_calls_keep_their_ids_and_one_without_arguments_has_an_empty_object() -> None:
    found = read(MESSAGES.reader(), [stream("tools")])
    assert found[2:-1] == [
        TextPiece("Let me look."),
        CallStarted(0, "toolu_01A", "get_weather"),
        CallArguments(0, '{"location":'),
        CallArguments(0, ' "Zürich", "days": [] }'),
        CallStarted(1, "toolu_01B", "get_time"),
        CallArguments(1, "{}"),
        Finished("tool_calls"),
    ]


def test_tokens_of_caches_are_part_of_the_prompt() -> None:
    used = read(MESSAGES.reader(), [stream("tools")])[-1]
    assert used == Used(
        Usage(
            prompt_tokens=600,
            completion_tokens=89,
            total_tokens=689,
            prompt_details={"cached_tokens": 100},
            cache_writes={"5m": 20, "1h": 8},
        )
    )


def test_thoughts_keep_their_signature() -> None:
    found = read(MESSAGES.reader(), [stream("thinking")])
    assert found[2:] == [
        ThinkingPiece(""),
        ThinkingPiece("27 * 453 = "),
        ThinkingPiece("12231"),
        ThinkingSigned("EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk="),
        ThinkingRedacted("EmwKAhgBEgy3va3pzix"),
        TextPiece("12,231"),
        Finished("stop", "END"),
        Used(
            Usage(
                prompt_tokens=40,
                completion_tokens=60,
                total_tokens=100,
                completion_details={"reasoning_tokens": 48},
            )
        ),
    ]


def test_tools_that_the_provider_runs_are_no_calls() -> None:
    found = read(MESSAGES.reader(), [stream("web_search")])
    assert found[2:4] == [TextPiece("It is sunny."), Finished("length")]


def test_an_error_inside_a_stream_has_the_status_of_its_type() -> None:
    found = read(MESSAGES.reader(), [stream("overloaded")])
    assert found[2:] == [
        TextPiece("Hal"),
        Failed(ProviderError("Overloaded", "overloaded_error", 529)),
    ]


def test_an_old_completion_ends_with_its_stop_reason() -> None:
    assert read(COMPLETE.reader(), [stream("complete")]) == [
        Started("compl_01", "claude-2.1"),
        TextPiece(" Hello"),
        TextPiece("!"),
        Finished("stop"),
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_anywhere_changes_nothing(name: str) -> None:
    whole = read(codec(name).reader(), [stream(name)])
    for chunks in halves(stream(name)):
        assert read(codec(name).reader(), chunks) == whole


@given(st.data(), st.sampled_from(STREAMS))
def test_random_chunks_change_nothing(data: st.DataObject, name: str) -> None:
    chunks = data.draw(cuts(stream(name)))
    assert read(codec(name).reader(), chunks) == read(codec(name).reader(), [stream(name)])


@pytest.mark.parametrize("name", STREAMS)
def test_lines_may_end_with_crlf(name: str) -> None:
    crlf = stream(name).replace(b"\n", b"\r\n")
    assert read(codec(name).reader(), [crlf]) == read(codec(name).reader(), [stream(name)])


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "complete"])
def test_a_stream_that_ends_too_soon_has_failed(name: str) -> None:
    data = stream(name)
    mark = b'"stop_reason":"stop_sequence"' if name == "complete" else b'"type":"message_delta"'
    for end in range(0, data.rindex(mark), 7):
        last = read(codec(name).reader(), [data[:end]])[-1]
        assert last == Failed(ProviderError("the provider's stream ended before its answer did"))


def test_the_last_event_counts_without_its_blank_line() -> None:
    whole = read(MESSAGES.reader(), [stream("text")])
    assert read(MESSAGES.reader(), [stream("text").rstrip()]) == whole


def test_a_stream_without_message_stop_is_complete_once_the_reason_was_told() -> None:
    cut = stream("text").partition(b"event: message_stop")[0]
    assert read(MESSAGES.reader(), [cut]) == read(MESSAGES.reader(), [stream("text")])


def test_nothing_is_read_behind_the_end() -> None:
    reader = MESSAGES.reader()
    reader.feed(stream("text"))
    assert reader.feed(stream("text")) == []
    assert reader.end() == []


def test_the_mark_of_older_versions_is_no_event() -> None:
    data = stream("text").replace(b"event: message_stop", b"data: [DONE]\n\nevent: message_stop")
    assert read(MESSAGES.reader(), [data]) == read(MESSAGES.reader(), [stream("text")])


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: \xff\xfe\n\n", b"data: 7\n\n"])
def test_an_event_that_is_no_object_fails(data: bytes) -> None:
    found = read(MESSAGES.reader(), [events(start()), data, stream("text")])
    assert found[-1] == Failed(
        ProviderError("the provider's stream has an event that is not a JSON object")
    )


def test_unknown_events_and_deltas_are_passed_over() -> None:
    found = deltas(
        start(),
        {"type": "vendor_event"},
        {"type": ["odd"]},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta"}},
        {"type": "content_block_delta", "index": {}, "delta": None},
        {"type": "content_block_delta", "index": [], "delta": {"type": "input_json_delta"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction"}},
        {"type": "content_block_stop", "index": None},
        {"type": "message_delta", "delta": None, "usage": None},
        stop("end_turn"),
    )
    assert found == [Started("m", "c"), Finished("stop")]


def test_an_endless_line_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_reader, "_MAX_EVENT", 1000)
    found = read(MESSAGES.reader(), [b"data: " + b"x" * 600, b"x" * 600])
    assert found == [Failed(ProviderError("a server-sent event is longer than 1000 bytes"))]


def test_an_error_that_is_no_stream_is_read() -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"Internal server error"}}'
    for chunks in halves(body):
        assert read(MESSAGES.reader(), chunks) == [
            Failed(ProviderError("Internal server error", "api_error", 500))
        ]


def test_a_whole_answer_of_a_server_that_does_not_stream_is_read() -> None:
    body = b'{"type":"message","id":"m","model":"c","content":[{"type":"text","text":"Hi"}]}'
    assert read(MESSAGES.reader(), [body]) == [
        Started("m", "c"),
        TextPiece("Hi"),
        Finished("stop"),
    ]


def test_an_error_without_a_message_still_fails() -> None:
    assert deltas({"type": "error"}) == [
        Failed(ProviderError("the provider's stream has an error without a message"))
    ]


def test_input_that_comes_with_the_start_of_a_call_is_kept() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}}
    found = deltas(
        start(),
        {"type": "content_block_start", "index": 0, "content_block": block},
        stop("end_turn"),
    )
    assert found[1:] == [
        CallStarted(0, "t", "f"),
        CallArguments(0, '{"a":[1]}'),
        Finished("tool_calls"),
    ]


def test_a_refusal_is_said() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    delta = {"stop_reason": "refusal", "stop_details": details}
    found = deltas(start(), {"type": "message_delta", "delta": delta})
    assert found[1:] == [RefusalPiece("Not this."), Finished("content_filter")]


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "length"),
        ("something_new", "stop"),
    ],
)
def test_each_reason_to_stop_has_openais_word(reason: str, meant: str) -> None:
    assert deltas(start(), stop(reason))[1] == Finished(meant)  # type: ignore[arg-type]


def test_the_count_of_message_start_is_replaced_and_not_added() -> None:
    used = deltas(start(input_tokens=10, output_tokens=5), stop("end_turn", output_tokens=7))[-1]
    assert used == Used(Usage(prompt_tokens=10, completion_tokens=7, total_tokens=17))


def test_iterations_of_a_compaction_are_summed() -> None:
    rounds = [
        {"type": "compaction", "input_tokens": 180, "output_tokens": 3},
        {"type": "message", "input_tokens": 23, "output_tokens": 10, "cache_read_input_tokens": 2},
        {"type": "advisor_message", "input_tokens": 1000, "output_tokens": 1000},
    ]
    used = deltas(
        start(input_tokens=23, output_tokens=1),
        stop("end_turn", input_tokens=23, output_tokens=10, iterations=rounds),
    )[-1]
    assert isinstance(used, Used)
    assert (used.usage.prompt_tokens, used.usage.completion_tokens) == (205, 13)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        "message_start",
                        "content_block_start",
                        "content_block_delta",
                        "content_block_stop",
                        "message_delta",
                        "message_stop",
                        "error",
                    ]
                )
            },
            optional={
                name: st.none()
                | st.integers(0, 2)
                | st.text(max_size=3)
                | st.lists(st.none(), max_size=1)
                | st.dictionaries(
                    st.sampled_from(["type", "text", "usage", "id", "stop_reason", "index"]),
                    st.none()
                    | st.integers(-9, 9)
                    | st.sampled_from(["text_delta", "tool_use", "input_json_delta", "x"])
                    | st.dictionaries(st.sampled_from(["input_tokens"]), st.none() | st.floats()),
                    max_size=4,
                )
                for name in ("message", "index", "content_block", "delta", "usage", "error")
            },
        ),
        max_size=6,
    )
)
def test_no_event_can_make_the_reader_raise(values: list[dict[str, object]]) -> None:
    found = read(MESSAGES.reader(), [events(*values)])
    assert all(not isinstance(delta, Failed) for delta in found[:-1])
