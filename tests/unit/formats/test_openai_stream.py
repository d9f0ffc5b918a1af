"""What single events of OpenAI's streams say, and how `usage: null` is cut out of one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.openai.stream import (
    Message,
    MessageError,
    characters,
    error_text,
    without_null_usage,
)
from kong_ai_proxy.formats.sse import Event

Json = dict[str, Any]


def message(value: object, name: bytes = b"") -> Message:
    return Message(Event(b"", name, orjson.dumps(value)))


def chat(**added: object) -> Json:
    return {"choices": [{"index": 0, "delta": added}]}


@pytest.mark.parametrize(
    "value",
    [
        chat(content="x"),
        chat(refusal="x"),
        chat(reasoning_content="x"),
        chat(reasoning="x"),
        chat(tool_calls=[{"index": 0}]),
        chat(function_call={"name": "f"}),
        {"choices": [{"delta": {}}, {"delta": {"content": "x"}}]},
        {"choices": [{"message": {"content": "x"}}]},
        {"choices": [{"text": "x"}]},
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": "response.reasoning_summary_text.delta", "delta": "x"},
        {"type": "response.function_call_arguments.delta", "delta": "{"},
        {"type": "response.output_item.done"},
        {"type": "response.completed"},
        {"type": "response.incomplete"},
        {"type": "image_generation.partial_image"},
        {"type": "image_generation.completed"},
        {"type": "transcript.text.delta", "delta": "x"},
        {"type": "speech.audio.delta", "audio": "x"},
    ],
)
def test_content(value: Json) -> None:
    assert message(value).has_content


@pytest.mark.parametrize(
    "value",
    [
        chat(role="assistant", content=""),
        chat(content=None, tool_calls=[]),
        {"choices": []},
        {"choices": None},
        {"choices": [None, 7, {"delta": None}, {"delta": 7}, {"text": ""}]},
        {"choices": {"delta": {"content": "x"}}},
        {"choices": [], "prompt_filter_results": [{}]},
        {"type": "response.created"},
        {"type": "response.output_item.added"},
        {"type": "response.output_text.delta", "delta": ""},
        {"type": "response.failed"},
        {"type": "error"},
        {},
    ],
)
def test_no_content(value: Json) -> None:
    assert not message(value).has_content


def test_choices_null_says_nothing_and_is_no_error() -> None:
    """Some providers send it in a chunk of usage or of a filter (Kong 3.12)."""
    found = message({"choices": None, "usage": None})
    assert (found.choices, found.error, found.usage, found.model) == ([], None, None, None)


def test_events_of_assistants_have_their_kind_from_the_event_s_name() -> None:
    assert message({"delta": {"content": []}}, b"thread.message.delta").has_content
    assert not message({"object": "thread"}, b"thread.created").has_content


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        ({"error": {"message": "overloaded", "code": "x"}}, b"", "overloaded"),
        ({"error": {"code": "server_error"}}, b"", "server_error"),
        ({"error": {"type": "overloaded_error", "message": ""}}, b"", "overloaded_error"),
        ({"error": "overloaded"}, b"", "overloaded"),
        ({"error": True, "message": "unsupported"}, b"", "unsupported"),
        ({"error": [1]}, b"", "unknown error"),
        ({"message": "overloaded"}, b"error", "overloaded"),
        ({"type": "error", "error": {"message": "overloaded"}}, b"error", "overloaded"),
        ({"type": "error", "code": "ERR", "message": "bad", "param": None}, b"error", "bad"),
        ({"type": "response.failed", "response": {"error": {"message": "no"}}}, b"", "no"),
        ({"type": "response.failed", "response": {}}, b"", "response.failed"),
        ({"last_error": {"message": "no"}}, b"thread.run.failed", "no"),
    ],
)
def test_errors(value: Json, name: bytes, text: str) -> None:
    assert message(value, name).error == text


@pytest.mark.parametrize("error", [None, False, "", {}, 0])
def test_an_empty_error_is_none(error: object) -> None:
    assert message({"error": error, "choices": []}).error is None


def test_the_failure_of_a_tool_is_no_failure_of_the_answer() -> None:
    assert message({"type": "response.mcp_call.failed", "item_id": "x"}).error is None


def test_an_error_s_text_is_bounded() -> None:
    assert len(error_text("x" * 100_000) or "") == 500


def test_usage_of_a_response_is_inside_of_it() -> None:
    response = {"usage": {"input_tokens": 1, "output_tokens": 2}, "service_tier": "flex"}
    found = message({"type": "response.completed", "response": response}).usage
    assert found is not None
    assert (found.total_tokens, found.service_tier) == (3, "flex")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"7", b'"x"', b"null", b"\xff"])
def test_data_that_is_no_object(data: bytes) -> None:
    with pytest.raises(MessageError, match="not a JSON object"):
        Message(Event(b"", b"", data))


def test_characters_of_texts_thoughts_and_arguments() -> None:
    calls = [{"index": 0, "function": {"name": "not counted", "arguments": '{"a":1}'}}]
    values = [chat(content='a"\u00e9\n'), chat(reasoning_content="bc"), chat(tool_calls=calls)]
    values.append({"choices": [{"text": "de"}]})
    assert characters(b"".join(orjson.dumps(value) for value in values)) == 4 + 2 + 7 + 2


def test_characters_of_texts_in_ascii_escapes() -> None:
    assert characters(rb'{"choices":[{"delta":{"content": "\u00e9\ud83d\ude00"}}]}') == 2


def test_characters_of_nonsense() -> None:
    assert characters(rb'"content":"\ud800"') > 0


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (b'{"a":1,"usage":null}', b'{"a":1}'),
        (b'{"usage":null}', b"{}"),
        (b'{"usage":null,"a":1}', b'{"a":1}'),
        (b'{"a":[{"b":"}"}],"usage":null,"c":{"d":[]}}', b'{"a":[{"b":"}"}],"c":{"d":[]}}'),
        (b'{"a":1,"usage":null,"obfuscation":"x"}', b'{"a":1,"obfuscation":"x"}'),
        (b'{ "a": 1, "usage": null }', b'{ "a": 1 }'),
        (b'{ "usage" : null , "a": 1 }', b'{ "a": 1 }'),
        (b'{"a":[[[[[[[[[1]]]]]]]]],"usage":null,"b":[]}', b'{"a":[[[[[[[[[1]]]]]]]]],"b":[]}'),
        (rb'{"a":"\"","usage":null}', rb'{"a":"\""}'),
    ],
)
def test_a_null_usage_is_cut_and_every_other_byte_stays(data: bytes, cut: bytes) -> None:
    assert without_null_usage(b"data: " + data + b"\n\n") == b"data: " + cut + b"\n\n"


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":{"usage":null}}',
        b'{"a":{"b":1,"usage":null}}',
        b'{"a":[{"b":1,"usage":null},2]}',
        b'{"a":{"b":1,"usage":null},"c":1}',
        rb'{"a":",\"usage\":null"}',
        rb'{"a":"x,\"usage\":null,\"b\":1"}',
        b'{"a":"usage","b":null}',
        b'{"usage":{"prompt_tokens":1}}',
        b'{"usage":0}',
        b'{"usage":{"usage":null},"a":1}',
        b"[DONE]",
        b"",
    ],
)
def test_what_is_not_a_null_usage_at_the_top_stays(data: bytes) -> None:
    raw = b"data: " + data + b"\n\n"
    assert without_null_usage(raw) == raw


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (b'data:{"a":1,"usage":null}\n\n', b'data:{"a":1}\n\n'),
        (b'data: {"a":1,"usage":null}\r\n\r\n', b'data: {"a":1}\r\n\r\n'),
        (b'\xef\xbb\xbfdata: {"a":1,"usage":null}\r\r', b'\xef\xbb\xbfdata: {"a":1}\r\r'),
        (b': {"usage":null}\ndata: {"usage":null}\n\n', b': {"usage":null}\ndata: {}\n\n'),
        (b'event: x\ndata: {"a":1,"usage":null}\nid: 1\n\n', b'event: x\ndata: {"a":1}\nid: 1\n\n'),
        (b'data: {"a":1,\ndata: "usage":null}\n\n', b'data: {"a":1,\ndata: "usage":null}\n\n'),
        (b'data: {"a":1,"usage":null}', b'data: {"a":1}'),
    ],
)
def test_events_of_every_form(raw: bytes, cut: bytes) -> None:
    assert without_null_usage(raw) == cut


_NAMES = st.sampled_from(["usage", "a", '"usage":null', ',"usage":null}', "\\", "\u00e9"])
_NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_LEAVES = st.none() | st.booleans() | _NUMBERS | _NAMES
_VALUES: Any = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=5), st.booleans())
def test_only_a_null_usage_at_the_top_is_ever_cut(value: Json, spaces: bool) -> None:
    text = orjson.dumps(value)
    text = text.replace(b",", b", ") if spaces else text
    meant = orjson.loads(text)
    cut = without_null_usage(b"data: " + text + b"\n\n")
    assert cut.startswith(b"data: ")
    assert cut.endswith(b"\n\n")
    left = {n: v for n, v in meant.items() if n != "usage" or v is not None}
    assert list(orjson.loads(cut[6:]).items()) == list(left.items())
    if left == meant:
        assert cut == b"data: " + text + b"\n\n"


def test_a_hostile_event_takes_one_pass() -> None:
    """A pattern that tried again and again would take hours."""
    raw = b'data: {"a":' + b"[" * 500_000 + b',"usage":null\n\n'
    assert without_null_usage(raw) == raw
    many = b"data: {" + b'"a":[1,' * 100_000 + b'"usage"\n\n'
    assert without_null_usage(many) == many
