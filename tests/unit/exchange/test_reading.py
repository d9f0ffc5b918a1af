"""What is learnt from answers while they pass, and that they pass unharmed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count, pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.exchange.kept import CUT, MAX_PAYLOAD
from kong_ai_proxy.exchange.reading import Reading, one_shot, stream
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.usage import Usage
from tests.unit.exchange import streams
from tests.unit.exchange.streams import (
    ASSISTANT,
    CHAT,
    CHAT_STRIPPED,
    COMPLETED,
    COMPLETIONS,
    DONE,
    IMAGES,
    RESPONSES,
    SPEECH,
    TOOLS,
    TRANSCRIPT,
    chunk,
    sse,
    told,
    typed,
)

STREAMS = {
    "chat": (openai.CHAT, CHAT),
    "chat with CRLF": (openai.CHAT, CHAT.replace(b"\n", b"\r\n")),
    "chat with CR": (openai.CHAT, CHAT.replace(b"\n", b"\r")),
    "chat with comments": (openai.CHAT, b": hi\n\n" + CHAT.replace(b"\n\n", b"\n\n: x\n\n")),
    "chat after a byte order mark": (openai.CHAT, b"\xef\xbb\xbf" + CHAT),
    "chat without the last blank line": (openai.CHAT, CHAT.removesuffix(b"\n\n")),
    "tools": (openai.CHAT, TOOLS),
    "completions": (openai.COMPLETIONS, COMPLETIONS),
    "responses": (openai.RESPONSES, RESPONSES),
    "images": (openai.IMAGE_GENERATIONS, IMAGES),
    "transcription": (openai.TRANSCRIPTIONS, TRANSCRIPT),
    "speech": (openai.SPEECH, SPEECH),
    "assistants": (openai.ASSISTANTS, ASSISTANT),
    "garbage": (openai.CHAT, sse(chunk("a"), b"{garbage", chunk("b", usage=None)) + DONE),
}


def start(route_type: str = openai.CHAT, **changes: Any) -> Reading:
    return stream(route_type, **{"keep": False, "strip_usage": False, **changes})


def passed(reading: Reading, chunks: Iterable[bytes]) -> bytes:
    """What goes to the client."""
    return b"".join([*(reading.feed(chunk) for chunk in chunks), reading.end()])


def read(raw: bytes, route_type: str = openai.CHAT, **changes: Any) -> Reading:
    """The reading of a stream that came in one piece."""
    reading = start(route_type, **changes)
    passed(reading, [raw])
    return reading


def learnt(reading: Reading) -> tuple[object, ...]:
    return (
        reading.has_content,
        reading.usage,
        reading.model,
        reading.error,
        reading.problem,
        reading.payload(),
    )


# However the bytes come


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_split_at_every_byte_is_the_same(name: str, strip: bool) -> None:
    route_type, raw = STREAMS[name]
    whole = start(route_type, strip_usage=strip)
    out = passed(whole, [raw])
    for at in range(1, len(raw)):
        split = start(route_type, strip_usage=strip)
        assert passed(split, [raw[:at], raw[at:]]) == out
        assert learnt(split) == learnt(whole)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_comes_byte_by_byte_is_the_same(name: str, strip: bool, keep: bool) -> None:
    route_type, raw = STREAMS[name]
    whole, split = (start(route_type, strip_usage=strip, keep=keep) for _ in range(2))
    out = passed(whole, [raw])
    assert passed(split, [raw[at : at + 1] for at in range(len(raw))]) == out
    assert learnt(split) == learnt(whole)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_comes_event_by_event_is_the_same(name: str, keep: bool) -> None:
    route_type, raw = STREAMS[name]
    whole, split = (start(route_type, strip_usage=True, keep=keep) for _ in range(2))
    out = passed(whole, [raw])
    assert passed(split, re.findall(rb"(?s).+?\n\n|.+", raw)) == out
    assert learnt(split) == learnt(whole)


_LINES = [b"data: {", b'"usage":null', b"}", b"\n", b"\r", b": x", b"[DONE]", b'"error"', b"data: "]
_LINES += [sse(chunk("a", usage=None)), sse(chunk(choices=[], usage=told())), DONE, b"\xff", b" "]


@given(st.lists(st.sampled_from(_LINES), max_size=12), st.data())
def test_no_byte_is_lost_or_late_whatever_comes(lines: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)) | {0, len(raw)})
    reading = start()
    for one, other in pairwise(cuts):
        piece = raw[one:other]
        assert reading.feed(piece) is piece
    assert reading.end() == b""


@given(st.lists(st.sampled_from(_LINES), max_size=12), st.data())
def test_stripping_does_the_same_however_the_bytes_come(
    lines: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)) | {0, len(raw)})
    whole, split = start(strip_usage=True), start(strip_usage=True)
    out = passed(whole, [raw])
    assert passed(split, [raw[a:b] for a, b in pairwise(cuts)]) == out
    assert learnt(split) == learnt(whole)


@pytest.mark.parametrize("name", STREAMS)
def test_without_stripping_every_chunk_passes_as_the_same_object(name: str) -> None:
    route_type, raw = STREAMS[name]
    reading = start(route_type, keep=True)
    for at in range(0, len(raw), 7):
        piece = raw[at : at + 7]
        assert reading.feed(piece) is piece
    assert reading.end() == b""


# Usage


def test_usage_comes_from_the_last_chunk() -> None:
    usage = read(CHAT).usage
    assert usage == Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)


def test_usage_of_a_chunk_that_has_choices_too_counts() -> None:
    """Known from OpenRouter and others (K8)."""
    raw = sse(chunk("Hi"), chunk(" there", usage=told(7, 2))) + DONE
    usage = read(raw).usage
    assert usage is not None
    assert (usage.completion_tokens, usage.estimated) == (2, False)


def test_of_running_totals_the_last_counts() -> None:
    raw = sse(*(chunk("x", usage=told(7, n)) for n in range(1, 5)), chunk(" ", usage=None)) + DONE
    usage = read(raw).usage
    assert usage is not None
    assert usage.completion_tokens == 4


def test_usage_of_a_streamed_response_comes_from_its_completion() -> None:
    """It stayed 0 elsewhere (K4)."""
    reading = read(RESPONSES, openai.RESPONSES)
    assert reading.usage == Usage(
        prompt_tokens=37,
        completion_tokens=11,
        total_tokens=48,
        prompt_details={"cached_tokens": 5},
        completion_details={"reasoning_tokens": 2},
        service_tier="default",
    )
    assert reading.model == "gpt-4.1"


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_usage_of_a_response_that_did_not_complete(status: str) -> None:
    response = streams.response(status, usage=streams.RESPONSE_USAGE)
    raw = typed(*streams.RESPONSES_START, {"type": f"response.{status}", "response": response})
    usage = read(raw, openai.RESPONSES).usage
    assert usage is not None
    assert usage.total_tokens == 48


@pytest.mark.parametrize(
    ("route_type", "raw", "tokens"),
    [
        (openai.COMPLETIONS, COMPLETIONS, (4, 2)),
        (openai.IMAGE_GENERATIONS, IMAGES, (50, 200)),
        (openai.IMAGE_EDITS, IMAGES.replace(b"generation", b"edit"), (50, 200)),
        (openai.TRANSCRIPTIONS, TRANSCRIPT, (14, 2)),
        (openai.SPEECH, SPEECH, (5, 40)),
        (openai.ASSISTANTS, ASSISTANT, (20, 8)),
    ],
)
def test_usage_of_other_streams(route_type: str, raw: bytes, tokens: tuple[int, int]) -> None:
    usage = read(raw, route_type).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == tokens


def test_an_image_of_many_megabytes_in_one_event_is_read() -> None:
    """gpt-image tells its details beside the image (Kong 3.15.0.4)."""
    done = {"type": "image_generation.completed", "b64_json": "A" * 8_000_000}
    raw = typed({**done, "usage": streams.IMAGE_USAGE})
    reading = start(openai.IMAGE_GENERATIONS)
    passed(reading, [raw[at : at + 65536] for at in range(0, len(raw), 65536)])
    assert reading.usage is not None
    assert reading.usage.prompt_details == {"text_tokens": 10, "image_tokens": 40}


@pytest.mark.parametrize("choices", [b"null", b"{}", b"7", b"[null]", b'[{"delta":null}]'])
def test_choices_of_any_shape_are_read(choices: bytes) -> None:
    """`choices: null` crashed observability elsewhere (Kong 3.12)."""
    odd = b'{"model":"m","choices":' + choices + b"}"
    reading = read(sse(odd, chunk("x"), odd, chunk(choices=None, usage=told())) + DONE, keep=True)
    assert reading.problem is None
    assert reading.usage is not None


def test_only_what_a_post_makes_is_counted() -> None:
    assert read(RESPONSES, openai.RESPONSES, method="GET").usage is None


def test_a_stream_that_tells_no_usage_is_estimated() -> None:
    raw = sse(*(chunk(text) for text in ("The answer to ", "1 + 1 is 2."))) + DONE
    usage = read(raw, prompt_estimate=lambda: 18).usage
    assert usage == Usage(prompt_tokens=18, completion_tokens=7, total_tokens=25, estimated=True)


def test_the_estimate_of_a_long_stream_is_its_characters_too() -> None:
    reading = start()
    passed(reading, [sse(chunk("\u00e9\n12345")) for _ in range(2000)])
    assert reading.usage is not None
    assert reading.usage.completion_tokens == 7 * 2000 / 4


def test_the_prompt_is_estimated_only_when_it_must_be_and_once() -> None:
    made = count(1)
    reading = read(sse(chunk("abcd")), prompt_estimate=lambda: next(made))
    assert (
        reading.usage
        == reading.usage
        == Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2, estimated=True)
    )
    assert read(CHAT, prompt_estimate=lambda: next(made)).usage is not None
    assert next(made) == 2


def test_what_a_client_that_left_early_had_is_estimated() -> None:
    reading = start()
    reading.feed(sse(chunk("12345678")))
    assert reading.usage == Usage(completion_tokens=2, total_tokens=2, estimated=True)


def test_a_stream_without_content_has_no_usage() -> None:
    assert read(sse(chunk(choices=[streams.ROLE])) + DONE).usage is None


def test_streams_of_other_kinds_are_not_estimated() -> None:
    raw = typed({"type": "response.output_text.delta", "delta": "abcdefgh"})
    assert read(raw, openai.RESPONSES).usage is None


# Taking out usage that the client did not ask for


def test_usage_that_the_client_did_not_ask_for_is_taken_out() -> None:
    """No chunk has `usage`, none is empty, and the end is there (L2)."""
    reading = start(strip_usage=True)
    assert passed(reading, [CHAT]) == CHAT_STRIPPED
    assert reading.usage is not None


def test_a_chunk_in_which_nothing_changes_passes_as_the_same_object() -> None:
    reading = start(strip_usage=True)
    for raw in (sse(chunk("a")), sse(chunk("b"), chunk("c")), b": x\n\n", DONE):
        assert reading.feed(raw) is raw


def test_usage_beside_choices_goes_and_the_choices_stay() -> None:
    raw = sse(chunk("Hi", usage=told())) + DONE
    assert passed(start(strip_usage=True), [raw]) == sse(chunk("Hi")) + DONE


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [], "usage": told(), "error": {"message": "overloaded"}},
    ],
)
def test_an_empty_chunk_that_tells_something_else_stays(value: dict[str, Any]) -> None:
    raw = sse(value, chunk("Hi")) + DONE
    assert passed(start(strip_usage=True), [raw]) == raw


# Content, errors, models


@pytest.mark.parametrize("name", STREAMS)
def test_content_is_noticed_with_the_event_that_brings_it(name: str) -> None:
    route_type, raw = STREAMS[name]
    reading = start(route_type)
    seen = []
    for event in raw.split(b"\n\n"):
        reading.feed(event + b"\n\n")
        seen.append((reading.has_content, event))
    first = next((event for has, event in seen if has), None)
    marks = [b"llo", b"tool_calls", b"one", b'"Hi"', b"partial_image", b"Hel", b"audio.delta"]
    marks += [b"message.delta", b'"a"']
    assert first is not None
    assert any(mark in first for mark in marks)


def test_reasoning_and_refusals_are_content() -> None:
    for name in ("reasoning_content", "reasoning", "refusal"):
        assert read(sse(chunk(choices=[{"index": 0, "delta": {name: "x"}}]))).has_content


@pytest.mark.parametrize(
    ("route_type", "raw"),
    [
        (openai.CHAT, sse({"error": {"message": "overloaded", "code": 529}})),
        (openai.CHAT, sse({"type": "error", "error": {"message": "overloaded"}}, name="error")),
        (openai.CHAT, sse({"message": "overloaded"}, name="error")),
        (openai.RESPONSES, typed({"type": "error", "message": "overloaded", "code": None})),
        (
            openai.RESPONSES,
            typed(
                {
                    "type": "response.failed",
                    "response": {"error": {"code": "server_error", "message": "overloaded"}},
                }
            ),
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", sse(chunk("Hi")), sse(chunk("Hi"), chunk("you"))])
def test_an_error_inside_a_stream_is_noticed(before: bytes, route_type: str, raw: bytes) -> None:
    """Elsewhere the client saw a clean end (L7)."""
    reading = start(route_type)
    assert passed(reading, [before, raw]) == before + raw
    assert reading.error == "overloaded"
    assert reading.has_content == bool(before)


def test_the_word_error_in_a_text_is_none() -> None:
    raw = sse(chunk('"error"'), chunk("error", error=None), chunk('{"error":{"message":"x"}}'))
    assert read(raw + DONE).error is None


def test_the_model_is_the_one_that_answers() -> None:
    assert read(CHAT).model == "gpt-4o-2024-08-06"


# What cannot be read


@pytest.mark.parametrize("strip", [False, True])
def test_garbage_passes_and_ends_the_reading(strip: bool) -> None:
    raw = sse(b"{garbage", chunk("b", usage=None), chunk(choices=[], usage=told())) + DONE
    reading = start(strip_usage=strip)
    assert passed(reading, [raw[:50], raw[50:]]) == raw
    assert reading.problem == "the data of an event is not a JSON object"
    assert reading.usage is None
    assert reading.has_content, "or the answer would be held back for ever"


@pytest.mark.parametrize("strip", [False, True])
def test_an_event_without_end_passes_and_ends_the_reading(strip: bool) -> None:
    pieces = [sse(chunk("a")), b"data: " + b"x" * 700_000, b"x" * 700_000, b"\n\n", DONE]
    reading = start(strip_usage=strip)
    assert passed(reading, pieces) == b"".join(pieces)
    assert reading.problem == "a server-sent event is longer than 1048576 bytes"
    assert reading.feed(b"more") == b"more"


def test_a_stream_that_breaks_off_inside_an_event_is_no_content() -> None:
    reading = start(strip_usage=True)
    assert passed(reading, [b'data: {"choices":[{"del']) == b'data: {"choices":[{"del'
    assert not reading.has_content
    assert reading.problem is not None


# Kept for the log


def kept(raw: bytes, route_type: str = openai.CHAT) -> Any:
    payload = read(raw, route_type, keep=True, strip_usage=True).payload()
    assert payload is not None
    return orjson.loads(payload)


def test_a_streamed_chat_is_kept_as_one_completion() -> None:
    assert kept(CHAT) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1694268190,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": 'H\u00e9llo "wor\\ld" \U0001f600',
                },
                "finish_reason": "stop",
            }
        ],
        "usage": told(),
    }


def test_tool_calls_are_put_together() -> None:
    (choice,) = kept(TOOLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_several_choices_are_kept_apart() -> None:
    parts = [(1, "b"), (0, "a"), (1, "B"), (0, "A")]
    raw = sse(*(chunk(choices=[{"index": n, "delta": {"content": t}}]) for n, t in parts))
    texts = [choice["message"]["content"] for choice in kept(raw)["choices"]]
    assert texts == ["aA", "bB"]


def test_a_streamed_completion_is_kept_as_one() -> None:
    found = kept(COMPLETIONS, openai.COMPLETIONS)
    assert found["object"] == "text_completion"
    assert found["choices"] == [{"index": 0, "text": "one two", "finish_reason": "stop"}]


def test_of_a_streamed_response_the_final_object_is_kept() -> None:
    assert kept(RESPONSES, openai.RESPONSES) == COMPLETED


def test_of_a_response_that_broke_off_its_text_is_kept() -> None:
    raw = RESPONSES.partition(b"event: response.output_text.done")[0]
    found = kept(raw, openai.RESPONSES)
    assert found["output"][0]["content"] == [{"type": "output_text", "text": "Hi there"}]
    assert found["status"] == "in_progress"


def test_of_a_streamed_transcription_the_result_is_kept() -> None:
    assert kept(TRANSCRIPT, openai.TRANSCRIPTIONS)["text"] == "Hello"


def test_of_streamed_speech_the_sound_is_not_kept() -> None:
    payload = read(SPEECH, openai.SPEECH, keep=True).payload()
    assert payload is not None
    assert "SUQz" not in payload


def test_of_a_run_its_messages_and_its_end_are_kept() -> None:
    assert [each["object"] for each in kept(ASSISTANT, openai.ASSISTANTS)] == [
        "thread.message",
        "thread.run",
    ]


def test_a_kept_stream_is_bounded() -> None:
    reading = start(keep=True)
    for _ in range(300):
        reading.feed(sse(chunk("x" * 10_000)))
    payload = reading.payload()
    assert payload is not None
    assert len(payload) < MAX_PAYLOAD + 1000
    assert CUT in payload


def test_tool_calls_without_number_are_bounded() -> None:
    calls = [{"index": n, "function": {"arguments": "x"}} for n in range(1000)]
    (choice,) = kept(sse(chunk(choices=[{"index": 0, "delta": {"tool_calls": calls}}])))["choices"]
    assert len(choice["message"]["tool_calls"]) == 128


def test_nothing_is_kept_unasked() -> None:
    assert read(CHAT).payload() is None
    assert one_shot(openai.CHAT, keep=False).payload() is None


# Answers in one piece

ANSWERS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "chat": (
        openai.CHAT,
        {"model": "gpt-4o", "choices": [], "usage": told(19, 10), "service_tier": "default"},
        (19, 10),
    ),
    "embeddings": (
        openai.EMBEDDINGS,
        {"data": [{"embedding": [0.1] * 99}], "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        (8, 0),
    ),
    "responses": (openai.RESPONSES, COMPLETED, (37, 11)),
    "images": (
        openai.IMAGE_EDITS,
        {"created": 1, "data": [{"b64_json": "A" * 999}], "usage": streams.IMAGE_USAGE},
        (50, 200),
    ),
    "transcriptions": (
        openai.TRANSCRIPTIONS,
        {"text": "Hi", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 2}},
        (14, 2),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_usage_of_an_answer_in_one_piece_however_it_comes(name: str) -> None:
    route_type, answer, tokens = ANSWERS[name]
    raw = orjson.dumps(answer)
    for at in range(len(raw)):
        reading = one_shot(route_type, keep=False)
        assert passed(reading, [raw[:at], raw[at:]]) == raw
        assert reading.usage is not None
        assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == tokens
        assert reading.model == answer.get("model")
        assert reading.usage.service_tier == answer.get("service_tier")


def in_one_piece(raw: bytes, route_type: str = openai.CHAT, **changes: Any) -> Reading:
    reading = one_shot(route_type, **{"keep": False, **changes})
    assert passed(reading, [raw]) == raw
    return reading


def test_an_image_of_many_megabytes_passes_as_the_same_objects() -> None:
    head, tail = b'{"data":[{"b64_json":"', b'"}],"usage":' + orjson.dumps(told()) + b"}"
    pieces = [head, *([b"A" * 65536] * 100), tail]
    reading = one_shot(openai.IMAGE_GENERATIONS, keep=False)
    assert all(reading.feed(piece) is piece for piece in pieces)
    assert reading.usage is not None


def test_an_error_in_an_answer_of_status_200() -> None:
    assert in_one_piece(b'{"error":{"message":"overloaded"}}').error == "overloaded"
    assert in_one_piece(b'{"error":null,"model":"m"}').error is None


@pytest.mark.parametrize("raw", [b"", b"hello", b"[1]", b'{"usage":', b"\xff\xd8\xff", b"null"])
def test_what_is_no_object_tells_nothing(raw: bytes) -> None:
    reading = in_one_piece(raw)
    assert (reading.usage, reading.model, reading.error) == (None, None, None)
    assert reading.has_content == bool(raw)


@pytest.mark.parametrize("route_type", [openai.FILES, openai.BATCHES, openai.VIDEOS])
def test_what_is_asked_for_again_and_again_is_not_counted(route_type: str) -> None:
    assert in_one_piece(b'{"model":"m","usage":{"input_tokens":1}}', route_type).usage is None


def test_a_response_that_is_only_fetched_is_not_counted() -> None:
    raw = orjson.dumps(COMPLETED)
    fetched = in_one_piece(raw, openai.RESPONSES, method="GET")
    assert (fetched.usage, fetched.model) == (None, "gpt-4.1")


def test_the_text_of_an_answer_is_kept() -> None:
    assert in_one_piece(b'{"text":"H\xc3\xa9"}', keep=True).payload() == '{"text":"H\u00e9"}'
    assert in_one_piece(b"1\n00:00", openai.TRANSCRIPTIONS, keep=True).payload() == "1\n00:00"


@pytest.mark.parametrize(
    ("route_type", "raw", "content_type"),
    [
        (openai.SPEECH, b"text", None),
        (openai.SPEECH, b"{}", "application/json"),
        (openai.FILES, b"text", "application/octet-stream"),
        (openai.VIDEOS, b"\0\0\0\x18ftypmp42", "video/mp4"),
        (openai.VIDEOS, b"\0\0\0\x18ftypmp42", None),
        (openai.FILES, b"\x89PNG", "text/plain"),
    ],
)
def test_binary_answers_are_not_kept(route_type: str, raw: bytes, content_type: str | None) -> None:
    reading = in_one_piece(raw, route_type, keep=True, content_type=content_type)
    assert reading.payload() is None
    assert reading.has_content


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u20ac", "\U0001f600"])
@pytest.mark.parametrize("shift", range(4))
def test_a_long_text_is_cut_between_characters(character: str, shift: int) -> None:
    raw = b"y" * shift + character.encode() * (MAX_PAYLOAD // 2)
    reading = one_shot(openai.CHAT, keep=True)
    passed(reading, [raw[at : at + 60_000] for at in range(0, len(raw), 60_000)])
    payload = reading.payload()
    if len(raw) <= MAX_PAYLOAD:
        assert payload == raw.decode()
        return
    assert payload is not None
    assert payload.endswith(CUT)
    assert raw.decode().startswith(payload.removesuffix(CUT))
    assert MAX_PAYLOAD - 4 < len(payload.removesuffix(CUT).encode()) <= MAX_PAYLOAD
