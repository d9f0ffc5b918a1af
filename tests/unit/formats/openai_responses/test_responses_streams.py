"""Streams of OpenAI's Responses, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import ChatCodec, Context
from kong_ai_proxy.formats.conversation import Media, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.chat import CHAT
from kong_ai_proxy.formats.openai.responses import RESPONSES
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.openai_responses import judge

FIXTURES = Path(__file__).parent / "fixtures"
STREAMS = sorted(path.stem for path in FIXTURES.glob("*.sse"))
COMPLETE = [name for name in STREAMS if name not in ("error", "failed")]
CONTEXT = Context(model="asked", id="AbC123", now=1700000000)
APART = 1000
"""Bytes between two places where a stream is split at once."""
BROKE_OFF = "the provider's stream ended before its answer was complete"


def stream(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def last_event(name: str) -> dict[str, object]:
    found = orjson.loads(stream(name).rstrip().rpartition(b"data: ")[2])
    assert isinstance(found, dict)
    return found


def read(*chunks: bytes) -> list[Delta]:
    return strategies.read(RESPONSES.reader(), list(chunks))


def event(**members: object) -> bytes:
    return b"data: " + orjson.dumps(members) + b"\n\n"


def written(*deltas: Delta) -> bytes:
    writer = RESPONSES.writer(CONTEXT)
    return b"".join(writer.feed([delta]) for delta in deltas) + writer.end()


def failure(deltas: list[Delta]) -> ProviderError:
    assert isinstance(deltas[-1], Failed)
    assert not any(isinstance(delta, Failed) for delta in deltas[:-1])
    return deltas[-1].error


def kinds(data: bytes) -> list[str]:
    return [each["type"].removeprefix("response.") for each in judge.events(data)]


# ---- any fixture


@pytest.mark.parametrize("name", STREAMS)
def test_the_fixture_is_what_the_reference_says(name: str) -> None:
    judge.events(stream(name).partition(b"\n\n")[2])


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_reads_and_writes_the_same_wherever_it_is_split(name: str) -> None:
    data = stream(name)
    deltas = read(data)
    batches: set[tuple[int, ...]] = set()
    for pieces in _split(data):
        reader = RESPONSES.reader()
        found = [*(reader.feed(piece) for piece in pieces), reader.end()]
        assert [delta for each in found for delta in each] == deltas
        batches.add(tuple(map(len, found)))
    for codec in (CHAT, RESPONSES):
        expected = _in_batches(codec, deltas, (len(deltas),))
        assert all(_in_batches(codec, deltas, sizes) == expected for sizes in batches)


def _split(data: bytes) -> Iterator[list[bytes]]:
    """`data` split at every byte, a long stream at several places at once."""
    for first in range(min(APART, len(data) + 1)):
        places = [0, *range(first, len(data) + 1, APART), len(data)]
        yield [data[i:j] for i, j in pairwise(places)]


def _in_batches(codec: ChatCodec, deltas: list[Delta], sizes: tuple[int, ...]) -> bytes:
    writer, rest = codec.writer(CONTEXT), iter(deltas)
    found = [writer.feed(list(islice(rest, size))) for size in sizes]
    return b"".join(found) + writer.end()


@settings(deadline=None)
@given(st.data())
def test_a_stream_reads_the_same_in_random_pieces(data: st.DataObject) -> None:
    whole = stream(data.draw(st.sampled_from(STREAMS)))
    assert read(*data.draw(strategies.cuts(whole))) == read(whole)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_stream_says_what_the_whole_response_says(name: str) -> None:
    assert collect(read(stream(name))) == collect(
        RESPONSES.parse_answer(last_event(name)["response"])
    )


@pytest.mark.parametrize("name", COMPLETE)
def test_a_response_that_is_only_told_at_the_end_is_read(name: str) -> None:
    end = event(**last_event(name))
    assert collect(read(end)) == collect(read(stream(name)))


@pytest.mark.parametrize("name", COMPLETE)
def test_items_without_pieces_are_read_whole(name: str) -> None:
    events = stream(name).split(b"\n\n")
    left = [each for each in events if b".delta\n" not in each and b"item.added" not in each]
    found, expected = (collect(read(data)) for data in (b"\n\n".join(left), stream(name)))
    assert found.choices[0].said == expected.choices[0].said
    assert found.choices[0].finish_reason == expected.choices[0].finish_reason


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "incomplete"])
def test_openais_client_puts_the_written_stream_together(name: str) -> None:
    data = written(*read(stream(name)))
    response = judge.events(data)[-1]["response"]
    items = judge.accumulated(data)
    assert len(items) == len(response["output"])
    for found, item in zip(items, response["output"], strict=True):
        assert item.items() <= found["item"].items()
        assert "".join(found["parts"].values()) == _said(item)


def _said(item: dict[str, object]) -> str:
    if isinstance(arguments := item.get("arguments"), str):
        return arguments
    parts = item.get("content") or item.get("summary") or []
    assert isinstance(parts, list)
    return "".join(part.get("text") or part.get("refusal") for part in parts)


@pytest.mark.parametrize("name", COMPLETE)
def test_what_is_written_reads_the_same(name: str) -> None:
    """But that the signature of a thought is sealed once more."""
    answer = collect(read(stream(name)))
    found = collect(read(written(*read(stream(name)))))
    assert [each for each in found.choices[0].said if not isinstance(each, Thinking)] == [
        each for each in answer.choices[0].said if not isinstance(each, Thinking)
    ]
    assert found.choices[0].thinking == answer.choices[0].thinking
    assert found.choices[0].finish_reason == answer.choices[0].finish_reason
    assert found.choices[0].logprobs == answer.choices[0].logprobs


# ---- read


def test_text_and_usage_are_read() -> None:
    answer = collect(read(stream("text")))
    assert answer.id.startswith("resp_67c9")
    assert (answer.model, answer.created) == ("gpt-4.1-2025-04-14", 1741290958)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Hi there! Grüß dich 👋", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_details["cached_tokens"] == 4
    assert answer.usage.completion_details["reasoning_tokens"] == 2
    assert answer.usage.service_tier == "default"


def test_parallel_calls_are_numbered_and_keep_their_ids() -> None:
    (choice,) = collect(read(stream("tools"))).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.text == "I look at both."
    assert [(call.id, call.name, call.arguments) for call in choice.calls] == [
        (
            "call_unLAR8MvFNptuiZK6K6HCy5k",
            "get_current_weather",
            '{"location":"Boston, MA","unit":"celsius"}',
        ),
        ("call_Xk2mAc9yQwLzPp0s7Vn3RtYd", "get_current_weather", '{"location":"Paris"}'),
        ("call_9LoEtB5uGxCjKk1fMh8QwZrS", "now", "{}"),
    ]


def test_parts_of_a_summary_are_paragraphs_of_a_thought_with_its_id() -> None:
    (choice,) = collect(read(stream("reasoning"))).choices
    assert choice.said[0] == Thinking(
        "**Counting**\n\nThe user asks.\n\n**Answering**\n\nIt is three.",
        "rs_6876cf02e0bc8192b74af0fb64b715ff06fa2fcced15a5ac:gAAAAABoZw==",
    )


def test_of_thoughts_and_their_summary_the_first_counts() -> None:
    def delta(kind: str, text: str, **where: int) -> bytes:
        return event(type=f"response.{kind}.delta", output_index=0, delta=text, **where)

    deltas = read(
        delta("reasoning_text", "a", content_index=0),
        delta("reasoning_summary_text", "b", summary_index=0),
        delta("reasoning_text", "c", content_index=1),
    )
    assert [each for each in deltas if isinstance(each, ThinkingPiece)] == [
        ThinkingPiece("a"),
        ThinkingPiece("\n\nc"),
    ]


def test_log_probabilities_follow_their_text() -> None:
    (choice,) = collect(read(stream("logprobs"))).choices
    assert [entry["token"] for entry in choice.logprobs if isinstance(entry, dict)] == ["Hi", "!"]


def test_a_picture_is_read() -> None:
    (choice,) = collect(read(stream("image"))).choices
    assert choice.said == (Media(kind="image", data="iVBORw0KGgo=", media_type="image/png"),)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "failed",
            ProviderError(
                "The model failed to generate a response.", status=500, code="server_error"
            ),
        ),
        (
            "error",
            ProviderError("Rate limit reached for gpt-4.1", status=429, code="rate_limit_exceeded"),
        ),
    ],
)
def test_a_stream_that_fails_says_why(name: str, error: ProviderError) -> None:
    assert failure(read(stream(name))) == error


@pytest.mark.parametrize(
    ("data", "message", "status"),
    [
        (b"", BROKE_OFF, 502),
        (b"\n\n", BROKE_OFF, 502),
        (b"data: {\n\n", "an event of the provider's stream is not a JSON object", 502),
        (b"data: \xc3\n\n", "an event of the provider's stream is not a JSON object", 502),
        (b"data: [1]\n\n", "an event of the provider's stream is not a JSON object", 502),
        (b"data: null\n\n", "an event of the provider's stream is not a JSON object", 502),
        (b"data: [DONE]\n\n", BROKE_OFF, 502),
        (b'data: {"type":"response.new.thing","delta":3}\n\n', BROKE_OFF, 502),
        (b'data: {"type":{"a":1}}\n\n', BROKE_OFF, 502),
        (b'data: {"error":{"message":"a","type":"server_error"}}\n\n', "a", 500),
        (b'data: {"type":"error","error":{"message":"a","code":"x"}}\n\n', "a", 0),
        (b'data: {"type":"error"}\n\n', "unknown error", 0),
        (b'data: {"type":"response.failed"}\n\n', "the provider's response is failed", 502),
        (b'{"error":{"message":"a","code":"invalid_api_key"}}', "a", 401),
        (b'{"output":3}', "the provider answered with JSON that is no response", 502),
        (b"<html></html>", BROKE_OFF, 502),
    ],
)
def test_what_is_no_stream_is_an_error(data: bytes, message: str, status: int) -> None:
    for chunks in strategies.halves(data):
        error = failure(read(*chunks))
        assert (error.message, error.status) == (message, status)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_breaks_off_is_an_error(name: str) -> None:
    data = stream(name)
    end = data.rindex(b"\n", 0, -2)
    for at in range(0, end, 97):
        assert failure(read(data[:at])).message == BROKE_OFF


def test_a_last_event_counts_without_its_blank_line() -> None:
    data = stream("text")
    assert read(data[:-1]) == read(data[:-2]) == read(data)


def test_nothing_is_read_after_the_end() -> None:
    data = stream("text")
    assert read(data + b"data: [DONE]\n\ndata: {", data) == read(data)


def test_an_endless_line_is_refused() -> None:
    reader = RESPONSES.reader()
    chunk = b"data: " + b"a" * (1 << 20)
    found = [delta for _ in range(40) for delta in reader.feed(chunk)]
    assert "longer than" in failure(found).message


def test_a_whole_answer_in_place_of_a_stream_is_read() -> None:
    response = last_event("tools")["response"]
    assert read(orjson.dumps(response)) == RESPONSES.parse_answer(response)


@pytest.mark.parametrize("member", ["delta", "item", "output_index", "response", "logprobs"])
@pytest.mark.parametrize("value", [None, [], {}, "a", 3, True])
def test_members_of_a_wrong_kind_are_never_an_exception(member: str, value: object) -> None:
    for name in STREAMS:
        for raw in stream(name).split(b"\n\n"):
            if b"data: " in raw:
                read(event(**{**orjson.loads(raw.partition(b"data: ")[2]), member: value}))


def test_items_are_told_apart_by_their_ids_where_indexes_are_missing() -> None:
    def gone(raw: bytes) -> bytes:
        if b"data: " not in raw:
            return raw
        value = orjson.loads(raw.partition(b"data: ")[2])
        value.pop("output_index", None)
        return b"data: " + orjson.dumps(value)

    data = b"\n\n".join(gone(raw) for raw in stream("tools").split(b"\n\n"))
    assert read(data) == read(stream("tools"))


# ---- written


def test_a_text_has_all_its_events_in_order() -> None:
    data = written(Started("resp_1", "real", 5), TextPiece("Hi"), TextPiece("!"), Finished("stop"))
    assert kinds(data) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    for each in judge.events(data):
        if "response" in each:
            assert (each["response"]["id"], each["response"]["model"]) == ("resp_1", "real")
        assert each.get("item_id", "msg_AbC1230") == "msg_AbC1230"
        assert each.get("output_index", 0) == 0


def test_a_thought_is_a_summary() -> None:
    data = written(ThinkingPiece("Hm."), ThinkingSigned("c2ln"), TextPiece("a"), Finished("stop"))
    assert kinds(data)[2:9] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
    ]
    item = judge.events(data)[7]["item"]
    assert item["encrypted_content"] == "signature:c2ln"


def test_a_call_has_all_its_events_in_order() -> None:
    data = written(
        CallStarted(0, "call_1", "f"), CallArguments(0, '{"a":'), CallArguments(0, "1}"),
        Finished("tool_calls"),
    )  # fmt: skip
    assert kinds(data)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    found = judge.events(data)
    assert found[2]["item"]["status"] == "in_progress"
    assert found[5]["arguments"] == found[6]["item"]["arguments"] == '{"a":1}'


def test_a_refusal_follows_a_text_in_the_same_message() -> None:
    data = written(TextPiece("a"), RefusalPiece("No."), Finished("stop"))
    (item,) = judge.accumulated(data)
    assert item["parts"] == {0: "a", 1: "No."}


def test_interleaved_calls_keep_their_arguments() -> None:
    data = written(
        CallStarted(0, "call_0", "f"),
        CallArguments(0, '{"a":'),
        CallStarted(1, "call_1", "g"),
        CallArguments(1, '{"b":'),
        CallArguments(0, "0}"),
        TextPiece("both"),
        CallArguments(1, "1}"),
        Finished("tool_calls"),
    )
    items = judge.accumulated(data)
    assert [item["parts"][0] for item in items] == ['{"a":0}', '{"b":1}', "both"]


def test_a_call_without_arguments_has_empty_ones() -> None:
    data = written(CallStarted(0, "", "f"), CallStarted(1, "", "g"), Finished("tool_calls"))
    first, second = judge.accumulated(data)
    assert first["parts"] == second["parts"] == {0: "{}"}
    assert first["item"]["call_id"] == "call_AbC1230"
    assert second["item"]["call_id"] == "call_AbC1231"


def test_an_answer_that_was_cut_ends_as_incomplete() -> None:
    data = written(TextPiece("a"), Finished("length"), Used(Usage(total_tokens=3)))
    *_, done, end = judge.events(data)
    assert done["item"]["status"] == "incomplete"
    assert end["type"] == "response.incomplete"
    assert end["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert end["response"]["usage"]["total_tokens"] == 3


def test_log_probabilities_come_with_the_text_and_at_the_end() -> None:
    told: list[object] = [{"token": "Hi", "logprob": -0.5, "bytes": None}]
    data = written(TextPiece("Hi"), Logprobs(told), Finished("stop"))
    full = {"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []}
    assert [each["logprobs"] for each in judge.events(data) if "logprobs" in each] == [
        [],
        [full],
        [full],
    ]
    (item,) = judge.accumulated(data)
    assert item["item"]["content"][0]["logprobs"] == [full]


def test_an_answer_without_an_end_is_ended() -> None:
    assert kinds(written(TextPiece("a")))[-1] == "completed"
    assert kinds(written()) == ["created", "in_progress", "completed"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderError("a", "rate_limit_error", 429), "rate_limit_exceeded"),
        (ProviderError("a", "overloaded_error", 529), "server_error"),
        (ProviderError("a", "invalid_request_error", 400), "invalid_prompt"),
        (ProviderError("a", code="invalid_image"), "invalid_image"),
        (ProviderError("a", code="something"), "server_error"),
    ],
)
def test_a_failure_ends_the_stream_as_failed(error: ProviderError, code: str) -> None:
    data = written(TextPiece("a"), Failed(error), TextPiece("b"))
    *_, end = judge.events(data)
    assert end["type"] == "response.failed"
    assert end["response"]["status"] == "failed"
    assert end["response"]["error"] == {
        "code": code,
        "message": "a",
        "type": error.type or None,
        "param": None,
    }
    assert b'"completed"' not in data


def test_a_failure_at_once_still_has_its_beginning() -> None:
    data = written(Failed(ProviderError("a")))
    assert kinds(data) == ["created", "in_progress", "failed"]
    with judge.client(data).responses.create(model="a", input="b", stream=True) as found:
        assert [each.type for each in found][-1] == "response.failed"


def test_openais_client_finds_no_good_end_after_a_failure() -> None:
    data = written(TextPiece("a"), Failed(ProviderError("a")))
    server = judge.client(data)
    with server.responses.stream(model="a", input="b") as found, pytest.raises(RuntimeError):
        found.get_final_response()


def test_only_the_first_alternative_is_written() -> None:
    data = written(TextPiece("a"), TextPiece("b", 1), Finished("stop", None, 1), TextPiece("c"))
    (item,) = judge.accumulated(data)
    assert item["parts"] == {0: "ac"}


def test_a_thought_that_cannot_be_read_and_a_signed_call_are_kept() -> None:
    data = written(
        ThinkingRedacted("AAAA"), CallStarted(0, "call_1", "f", "c2ln"), Finished("tool_calls")
    )
    output = judge.events(data)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "reasoning", "function_call"]
    found = RESPONSES.parse_request({"input": output}).messages
    assert [block for message in found for block in message.blocks] == [
        Thinking("", redacted="AAAA"),
        ToolCall("call_1", "f", "{}", "c2ln"),
    ]


def test_a_thought_that_cannot_be_read_is_an_item_of_its_own() -> None:
    deltas = ThinkingPiece("Hm."), ThinkingRedacted("AAAA"), ThinkingPiece("So."), Finished("stop")
    output = judge.events(written(*deltas))[-1]["response"]["output"]
    assert [(item["summary"], item.get("encrypted_content")) for item in output] == [
        ([{"type": "summary_text", "text": "Hm."}], None),
        ([], "redacted:AAAA"),
        ([{"type": "summary_text", "text": "So."}], None),
    ]


def test_media_without_an_item_are_texts() -> None:
    data = written(MediaPiece(Media(kind="image", url="https://example.com/a.png")))
    assert judge.events(data)[-1]["response"]["output"][0]["content"][0]["text"] == (
        "![image](https://example.com/a.png)"
    )


@settings(deadline=None, max_examples=50)  # the judge is slow
@given(
    strategies.delta_lists(
        choices=1, assistant_media=True, media_kinds=("image",), media_urls=False
    )
)
def test_any_stream_is_valid_and_says_what_the_answer_says(deltas: list[Delta]) -> None:
    data = written(*deltas)
    items = judge.accumulated(data) if b"response.completed" in data else []
    end = judge.events(data)[-1]["response"]
    for found, item in zip(items, end["output"], strict=False):
        assert "".join(found["parts"].values()) == _said(item)
    expected = RESPONSES.render_answer(collect(deltas), CONTEXT)
    assert isinstance(expected, dict)
    assert _unordered(end) == _unordered(expected)


def _unordered(response: dict[str, object]) -> list[object]:
    """The kinds and contents of the output items."""
    output = response["output"]
    assert isinstance(output, list)
    return [response["status"], [{**item, "id": ""} for item in output], response["usage"]]


def test_text_of_a_message_comes_once() -> None:
    (choice,) = collect(read(stream("web_search"))).choices
    assert choice.said == (Text("Sunny (example.com)."),)
