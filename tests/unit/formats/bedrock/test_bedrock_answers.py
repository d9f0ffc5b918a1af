"""Whole answers and streams of Converse, errors too. botocore reads what clients get."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.aws_event_stream import encode
from kong_ai_proxy.formats.bedrock import CONVERSE, exception_name
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Failed,
    Finished,
    MediaPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.bedrock import oracle
from tests.unit.formats.bedrock.support import event, events, exception, fixture, lines, stream
from tests.unit.formats.strategies import answers, cuts, delta_lists, halves, read

CONTEXT = Context(model="some.model", id="abc", now=1)
STREAMS = ["text", "tools", "throttled"]
FEATURES = {
    "choices": 1,
    "refusals": False,
    "call_signatures": False,
    "logprobs": False,
    "assistant_media": True,
    "media_urls": False,
}


def deltas(data: bytes) -> list[Delta]:
    return read(CONVERSE.reader(), [data])


def written(pieces: list[Delta]) -> bytes:
    writer = CONVERSE.writer(CONTEXT)
    return b"".join(writer.feed([piece]) for piece in pieces) + writer.end()


def failure(found: list[Delta]) -> ProviderError:
    last = found[-1]
    assert isinstance(last, Failed)
    return last.error


def as_told(answer: Answer) -> Answer:
    """What Converse has room for: no id, no model, usage always, reasoning not counted apart."""
    usage = answer.usage or Usage()
    return replace(
        answer,
        id="",
        model="",
        created=0,
        usage=replace(usage, completion_details={}),
    )


# --- whole answers ---


def test_a_whole_answer_is_read() -> None:
    assert CONVERSE.parse_answer(fixture("answer")) == [
        Started(),
        ThinkingPiece("The tool knows."),
        ThinkingSigned("c2lnbmVk"),
        TextPiece("I look."),
        CallStarted(0, "tooluse_1", "top_song"),
        CallArguments(0, '{"sign":"WZPZ"}'),
        CallStarted(1, "tooluse_2", "weather"),
        CallArguments(1, "{}"),
        Finished("tool_calls"),
        Used(
            Usage(
                prompt_tokens=130,
                completion_tokens=12,
                total_tokens=142,
                prompt_details={"cached_tokens": 80},
                cache_writes={"1h": 15, "": 5},
                service_tier="priority",
            ),
            {"trace": fixture("answer")["trace"]},
        ),
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_reasons_to_stop(told: str | None, expected: str) -> None:
    body = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": told}
    assert Finished(expected) in CONVERSE.parse_answer(body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "expected"), [("end_turn", "tool_calls"), ("malformed_tool_use", "stop")]
)
def test_calls_decide_about_the_reason_where_they_can_be_run(told: str, expected: str) -> None:
    call = {"toolUse": {"toolUseId": "t", "name": "a", "input": {}}}
    body = {"output": {"message": {"content": [call]}}, "stopReason": told}
    assert CONVERSE.parse_answer(body)[-1] == Finished(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [None, [], {}, {"output": None}, {"output": {"message": {"content": "Hi"}}}]
)
def test_what_is_no_answer_is_refused(body: object) -> None:
    with pytest.raises(FormatError):
        CONVERSE.parse_answer(body)


def test_an_error_in_place_of_an_answer_is_an_error() -> None:
    body = {"__type": "com.amazon#ThrottlingException", "message": "Slow down"}
    assert failure(CONVERSE.parse_answer(body)) == ProviderError("Slow down", "ThrottlingException")


def test_blocks_that_are_none_of_the_models_words_are_passed_over() -> None:
    content = [{}, {"text": None}, {"new": {}}, {"toolResult": {"content": []}}, "text", None]
    cited = {"citationsContent": {"content": [{"text": "So "}, {"text": "it is."}]}}
    body = {"output": {"message": {"content": [*content, cited]}}, "stopReason": "end_turn"}
    assert CONVERSE.parse_answer(body) == [Started(), TextPiece("So it is."), Finished("stop")]


@given(answers(**FEATURES))
def test_an_answer_survives_there_and_back_and_boto3_reads_it(answer: Answer) -> None:
    body = CONVERSE.render_answer(answer, CONTEXT)
    assert oracle.answer("Converse", body)["stopReason"] == body["stopReason"]  # type: ignore[index]
    assert as_told(collect(CONVERSE.parse_answer(body))) == as_told(answer)


def test_what_bedrock_has_no_room_for_is_said_otherwise() -> None:
    sound = Media(kind="audio", data="AAAA", media_type="audio/wav")
    far = Media(kind="image", url="https://example.com/a.png")
    call = ToolCall("", "a", '{"cut')
    answer = Answer(choices=(Choice((sound, far, call, Thinking("hm"))), Choice((Text("other"),))))
    body = CONVERSE.render_answer(answer, CONTEXT)
    found = oracle.answer("Converse", body)
    assert found["output"]["message"]["content"] == [
        {"text": "![audio](data:audio/wav;base64,AAAA)"},
        {"text": "![image](https://example.com/a.png)"},
        {"toolUse": {"toolUseId": "tooluse_abc00", "name": "a", "input": '{"cut'}},
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
    ]


def test_a_trace_reaches_clients() -> None:
    trace = {"guardrail": {"actionReason": "No action."}}
    answer = Answer(choices=(Choice((Text("Hi"),)),), usage=Usage(), extra={"trace": trace})
    assert oracle.answer("Converse", CONVERSE.render_answer(answer, CONTEXT))["trace"] == trace
    (*_, last) = oracle.events("ConverseStream", written([Used(Usage(), {"trace": trace})]))
    assert last["metadata"]["trace"] == trace


# --- streams ---


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_at_every_byte_is_read_and_written_alike(name: str) -> None:
    data = stream(name)
    whole = deltas(data)
    out = written(whole)
    for chunks in halves(data):
        found = read(CONVERSE.reader(), chunks)
        assert found == whole
        assert written(found) == out


@given(
    st.sampled_from(STREAMS).map(stream).flatmap(lambda data: st.tuples(st.just(data), cuts(data)))
)
def test_a_stream_in_random_chunks_is_the_same(cut: tuple[bytes, list[bytes]]) -> None:
    data, chunks = cut
    assert read(CONVERSE.reader(), chunks) == deltas(data)


def test_text_is_read_from_a_stream() -> None:
    assert deltas(stream("text")) == [
        Started(),
        TextPiece("Zürich "),
        TextPiece("🎵 sings."),
        Finished("stop", "END"),
        Used(
            Usage(
                prompt_tokens=10,
                completion_tokens=5,
                total_tokens=15,
                prompt_details={"cached_tokens": 0},
            ),
            {
                "trace": {"guardrail": {"actionReason": "No action."}},
                "additionalModelResponseFields": {"stop_sequence": "END"},
            },
        ),
    ]


def test_thoughts_calls_and_images_are_read_from_a_stream() -> None:
    assert deltas(stream("tools")) == [
        Started(),
        ThinkingPiece("Two "),
        ThinkingPiece("tools."),
        ThinkingSigned("c2lnbmVk"),
        ThinkingRedacted("Zm9vYmE="),
        TextPiece("I look."),
        CallStarted(0, "tooluse_1", "top_song"),
        CallArguments(0, '{"sign":'),
        CallArguments(0, ' "WZPZ"}'),
        CallStarted(1, "tooluse_2", "weather"),
        CallArguments(1, "{}"),
        MediaPiece(Media(kind="image", data="iVBORw0KGgo=", media_type="image/png")),
        Finished("tool_calls"),
        Used(
            Usage(
                prompt_tokens=10,
                completion_tokens=9,
                total_tokens=19,
                cache_writes={"": 3},
                service_tier="flex",
            )
        ),
    ]


def test_an_image_in_several_pieces_is_put_together() -> None:
    start = {"contentBlockIndex": 0, "start": {"image": {"format": "png"}}}
    parts = [
        {"contentBlockIndex": 0, "delta": {"image": {"source": {"bytes": each}}}}
        for each in ("iQ==", "UE4=")
    ]
    data = events(
        {"contentBlockStart": start},
        *({"contentBlockDelta": part} for part in parts),
        {"contentBlockStop": {"contentBlockIndex": 0}},
    )
    image = Media(kind="image", data="iVBO", media_type="image/png")
    assert deltas(data)[0] == MediaPiece(image)


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("throttlingException", "ThrottlingException", 429),
        ("modelStreamErrorException", "ModelStreamErrorException", 424),
        ("internalServerException", "InternalServerException", 500),
        ("validationException", "ValidationException", 400),
        ("serviceUnavailableException", "ServiceUnavailableException", 503),
        ("modelTimeoutException", "ModelTimeoutException", 408),
        ("someNewException", "SomeNewException", 500),
    ],
)
def test_an_exception_in_a_stream_is_the_end(name: str, kind: str, status: int) -> None:
    data = event("messageStart", {"role": "assistant"}) + exception(name, "No.")
    found = deltas(data + event("messageStop", {"stopReason": "end_turn"}))
    assert found == [Started(), Failed(ProviderError("No.", kind, status))]


def test_an_error_that_the_service_model_does_not_know_is_the_end() -> None:
    headers = {":message-type": "error", ":error-code": "500", ":error-message": "Lost"}
    assert deltas(encode(headers, b"")) == [Failed(ProviderError("Lost", "500", 500))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "ended before its answer did", id="nothing"),
        pytest.param(stream("tools")[:400], "ended before", id="cut"),
        pytest.param(events(*lines("tools")[:5]), "ended before", id="no messageStop"),
        pytest.param(b'{"message":"Not found"}', "no AWS event stream", id="JSON"),
        pytest.param(b"<html>502 Bad Gateway</html>", "no AWS event stream", id="HTML"),
        pytest.param(event("messageStart", [])[:-1] + b"x", "checksum", id="wrong CRC"),
        pytest.param(event("messageStart", []), "no JSON object", id="an array"),
        pytest.param(
            encode({":event-type": "contentBlockDelta"}, b'{"delta":{"text":"\xc3"}}'),
            "no JSON object",
            id="half a letter",
        ),
    ],
)
def test_a_stream_that_cannot_be_read_fails_and_says_why(data: bytes, message: str) -> None:
    for chunks in halves(data):
        reader = CONVERSE.reader()
        found = read(reader, chunks)
        assert message in failure(found).message
        assert sum(isinstance(each, Failed) for each in found) == 1
        assert reader.feed(stream("text")) == reader.end() == []


def test_a_stream_may_lack_its_usage() -> None:
    found = deltas(events(*lines("text")[:-1]))
    assert isinstance(found[-1], Finished)


@pytest.mark.parametrize(
    "value",
    [
        {"contentBlockDelta": {}},
        {"contentBlockDelta": {"delta": None}},
        {"contentBlockDelta": {"delta": {"text": None}}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}, "contentBlockIndex": 9}},
        {"contentBlockDelta": {"delta": {"toolUse": None}, "contentBlockIndex": []}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {}}}},
        {"contentBlockDelta": {"delta": {"image": {}}, "contentBlockIndex": {}}},
        {"contentBlockDelta": {"delta": {"citation": {"title": "a"}}}},
        {"contentBlockStart": {"start": {"toolUse": {}}, "contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"toolResult": {}}, "contentBlockIndex": 0}},
        {"contentBlockStart": {"start": None}},
        {"contentBlockStop": {"contentBlockIndex": {}}},
        {"metadata": {"usage": None}},
    ],
)
def test_odd_events_do_no_harm(value: dict[str, object]) -> None:
    found = deltas(events(value, *lines("text")))
    assert found == deltas(stream("text"))


@given(delta_lists(**FEATURES))
def test_any_pieces_are_a_stream_that_boto3_reads_and_that_tells_the_same(
    pieces: list[Delta],
) -> None:
    data = written(pieces)
    found = oracle.events("ConverseStream", data)
    assert [*found[0]] == ["messageStart"]
    assert [*found[-2], *found[-1]] == ["messageStop", "metadata"]
    assert as_told(collect(deltas(data))) == as_told(collect(pieces))


@given(delta_lists(**FEATURES))
def test_blocks_are_numbered_and_open_one_at_a_time(pieces: list[Delta]) -> None:
    expected, last = 0, -1
    for each in oracle.events("ConverseStream", written(pieces)):
        ((name, value),) = each.items()
        if "contentBlockIndex" in value:
            last = value["contentBlockIndex"]
            assert last == expected
            expected += name == "contentBlockStop"
    assert last + 1 == expected


def test_calls_one_after_another_do_not_wait() -> None:
    writer = CONVERSE.writer(CONTEXT)
    writer.feed([CallStarted(0, "a", "one"), CallArguments(0, '{"a":1}')])
    out = writer.feed([CallStarted(1, "", "two")]) + writer.feed([CallArguments(1, "{}")])
    tool = {"toolUseId": "tooluse_abc01", "name": "two"}
    assert oracle.events("ConverseStream", out) == [
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"toolUse": tool}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}, "contentBlockIndex": 1}},
    ]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ProviderError("Slow", "rate_limit_error", 429), "throttlingException"),
        (ProviderError("Busy", "overloaded_error", 529), "serviceUnavailableException"),
        (ProviderError("Bad", "", 400), "validationException"),
        (ProviderError("No", "", 403), "validationException"),
        (ProviderError("Late", "ModelTimeoutException", 408), "modelStreamErrorException"),
        (ProviderError("Gone"), "internalServerException"),
    ],
)
def test_a_failure_is_an_exception_and_no_good_end(error: ProviderError, name: str) -> None:
    writer = CONVERSE.writer(CONTEXT)
    out = writer.feed([Started(), TextPiece("Half"), Failed(error), TextPiece("more")])
    out += writer.feed([TextPiece("more")]) + writer.end()
    *_, said, last = oracle.events("ConverseStream", out)
    assert said["contentBlockDelta"]["delta"] == {"text": "Half"}
    assert last["Error"] == {"Code": name, "Message": error.message}


def test_a_failure_before_anything_else_is_all_there_is() -> None:
    writer = CONVERSE.writer(CONTEXT)
    (only,) = oracle.events("ConverseStream", writer.feed([Failed(ProviderError("No"))]))
    assert only["Error"]["Message"] == "No"


# --- errors ---


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, b'{"message":"Slow"}', ProviderError("Slow", "ThrottlingException", 429)),
        (400, b'{"Message":"Bad"}', ProviderError("Bad", "ValidationException", 400)),
        (
            404,
            b'{"__type":"com.amazon.coral.service#UnknownOperationException"}',
            ProviderError("UnknownOperationException", "UnknownOperationException", 404),
        ),
        (
            502,
            b"<html>",
            ProviderError("the provider answered with status 502", "InternalServerException", 502),
        ),
        (
            503,
            b"",
            ProviderError(
                "the provider answered with status 503", "ServiceUnavailableException", 503
            ),
        ),
        (403, b'{"a":1}', ProviderError('{"a":1}', "AccessDeniedException", 403)),
    ],
)
def test_errors_are_read(status: int, body: bytes, expected: ProviderError) -> None:
    assert CONVERSE.parse_error(status, body) == expected


@pytest.mark.parametrize("with_header", [True, False])
def test_boto3_knows_an_error_by_its_header_and_without(with_header: bool) -> None:
    error = ProviderError("Slow", "rate_limit_error", 429)
    headers = {"x-amzn-errortype": exception_name(error)} if with_header else {}
    body = orjson.loads(orjson.dumps(CONVERSE.render_error(error)))
    found = oracle.answer("Converse", body, 429, **headers)
    assert found["Error"] == {"Message": "Slow", "Code": "ThrottlingException"}
