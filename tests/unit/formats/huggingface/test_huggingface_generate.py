"""Text-generation-inference's own format, read and written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import (
    TextGenerationInput,
    TextGenerationInputGenerateParameters,
    TextGenerationOutput,
    TextGenerationStreamOutput,
)
from huggingface_hub.errors import TextGenerationError
from huggingface_hub.inference._common import _stream_text_generation_response
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Text,
    Tool,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Choice,
    Delta,
    Failed,
    Finished,
    MediaPiece,
    Started,
    TextPiece,
    Used,
    collect,
    pieces,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.huggingface import GENERATE, GENERATE_ARRAY
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies

FIXTURES = Path(__file__).parent / "fixtures"
FIXTURE = orjson.loads((FIXTURES / "generate.json").read_bytes())
STREAM = (FIXTURES / "stream.sse").read_bytes()
CONTEXT = Context(model="tgi", id="abcdefghijklmnopqrstuvwx", now=1)
SCHEMA = {"type": "object", "properties": {}}


def prompt(text: str = "Once", **more: Any) -> Conversation:
    return Conversation(messages=(Message("user", (Text(text),)),), is_completion=True, **more)


def body_of(talk: Conversation) -> dict[str, Any]:
    """A rendered request, of which the library knows every member."""
    body = GENERATE.render_request(talk).body
    assert body.keys() <= {field.name for field in fields(TextGenerationInput)}
    known = {field.name for field in fields(TextGenerationInputGenerateParameters)}
    parameters: Any = body["parameters"]
    assert parameters.keys() <= known
    return body


def read(*chunks: bytes) -> list[Delta]:
    return strategies.read(GENERATE.reader(), list(chunks))


def written(deltas: list[Delta], context: Context = CONTEXT) -> bytes:
    writer = GENERATE.writer(context)
    return b"".join([writer.feed([delta]) for delta in deltas]) + writer.end()


def events(data: bytes) -> list[TextGenerationStreamOutput]:
    """Of a written stream, as the library reads them."""
    found = _stream_text_generation_response(data.decode().split("\n"), details=True)
    return [each for each in found if isinstance(each, TextGenerationStreamOutput)]


# ---- requests


def test_the_documented_request_is_read() -> None:
    talk = GENERATE.parse_request(FIXTURE["request"]["body"])
    assert talk.is_completion
    assert talk.messages == (Message("user", (Text("My name is Olivier and I"),)),)
    assert talk.settings == {
        "best_of": 1,
        "do_sample": True,
        "frequency_penalty": 0.1,
        "max_tokens": 20,
        "repetition_penalty": 1.03,
        "echo": False,
        "stop": ["photographer"],
        "temperature": 0.5,
        "top_k": 10,
        "top_p": 0.95,
        "typical_p": 0.95,
        "watermark": True,
    }


def test_the_documented_request_is_made_again_from_what_was_read() -> None:
    body = FIXTURE["request"]["body"]
    said = {name: value for name, value in body["parameters"].items() if value is not None}
    talk = GENERATE.parse_request(body)
    assert body_of(talk) == body | {"parameters": said}
    assert GENERATE.render_request(talk).dropped == ()


def test_the_path_says_whether_it_streams() -> None:
    body = {"inputs": "a", "stream": True}
    assert GENERATE.parse_request(body).stream
    assert not GENERATE.parse_request(body, stream=False).stream
    assert GENERATE.parse_request({"inputs": "a"}, model="m", stream=True).model == "m"


def test_details_are_always_asked_for() -> None:
    parameters = body_of(prompt())["parameters"]
    assert parameters == {"details": True, "return_full_text": False}


def test_sampling_that_changes_nothing_is_left_out() -> None:
    parameters = body_of(prompt(settings={"temperature": 0, "top_p": 1}))["parameters"]
    assert "temperature" not in parameters
    assert "top_p" not in parameters
    assert parameters["do_sample"] is False


def test_what_the_server_does_not_know_is_dropped_and_named() -> None:
    talk = prompt(
        settings={"presence_penalty": 1, "n": 2, "user": "u", "echo": True},
        reasoning=Reasoning(effort="low"),
    )
    dropped = ("presence_penalty", "n", "user", "reasoning_effort")
    assert GENERATE.render_request(talk).dropped == dropped


@pytest.mark.parametrize(
    ("grammar", "output"),
    [
        ({"type": "json", "value": SCHEMA}, OutputFormat(schema=SCHEMA)),
        (
            {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}},
            OutputFormat(schema=SCHEMA, name="n"),
        ),
    ],
)
def test_a_grammar_of_json_is_the_format_of_the_answer(grammar: object, output: object) -> None:
    talk = GENERATE.parse_request({"inputs": "a", "parameters": {"grammar": grammar}})
    assert talk.output == output
    assert body_of(talk)["parameters"]["grammar"] == {"type": "json", "value": SCHEMA}


def test_another_grammar_is_kept_as_it_is() -> None:
    grammar = {"type": "regex", "value": "[0-9]+"}
    talk = GENERATE.parse_request({"inputs": "a", "parameters": {"grammar": grammar}})
    assert body_of(talk)["parameters"]["grammar"] == grammar


def test_any_json_object_is_a_grammar() -> None:
    parameters = body_of(prompt(output=OutputFormat()))["parameters"]
    assert parameters["grammar"] == {"type": "json", "value": {"type": "object"}}


def test_only_text_can_be_continued() -> None:
    image = Message("user", (Text("a"), Media(kind="image", data="AAAA")))
    with pytest.raises(FormatError, match=r"messages\[0\]\.content\[1\]"):
        GENERATE.render_request(Conversation(messages=(image,)))
    with pytest.raises(FormatError, match="tools"):
        GENERATE.render_request(prompt(tools=(Tool(name="a"),)))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "parameters": {"stop": "b"}}, "parameters.stop"),
    ],
)
def test_what_is_wrong_in_a_request_is_named(body: dict[str, object], place: str) -> None:
    with pytest.raises(FormatError) as error:
        GENERATE.parse_request(body)
    assert str(error.value).startswith(f"{place}: expected")


# ---- answers


@pytest.mark.parametrize("in_array", [False, True])
def test_a_whole_answer_is_read_alone_and_in_an_array(in_array: bool) -> None:
    body = FIXTURE["answer"]["body"]
    answer = collect(GENERATE.parse_answer([body] if in_array else body))
    assert answer.choices == (Choice((Text(" live in Paris"),), "length"),)
    assert answer.usage == Usage(prompt_tokens=2, completion_tokens=3, total_tokens=5)


def test_an_answer_without_details_has_no_usage() -> None:
    answer = collect(GENERATE.parse_answer([{"generated_text": "a", "details": None}]))
    assert (answer.choices, answer.usage) == ((Choice((Text("a"),)),), None)


@pytest.mark.parametrize("value", [None, [], {}, [[]], {"generated_text": 1}, [1, 2]])
def test_something_else_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        GENERATE.parse_answer(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (FIXTURE["error"]["body"], "Model is overloaded"),
        ([FIXTURE["error"]["body"]], "Model is overloaded"),
        ({"error": ["a", "b"]}, "a; b"),
        ({"error": {"message": "no such model", "type": "x", "code": "y"}}, "no such model"),
        ({"message": "unauthorized"}, "unauthorized"),
    ],
)
def test_an_error_that_is_a_whole_answer_is_one(value: object, message: str) -> None:
    (failed,) = GENERATE.parse_answer(value)
    assert isinstance(failed, Failed)
    assert failed.error.message == message
    assert GENERATE.parse_error(400, orjson.dumps(value)).message == message


def test_a_stream_is_read() -> None:
    assert read(STREAM) == [
        Started(),
        TextPiece("\n\n"),
        TextPiece("Deep"),
        TextPiece(" größer"),
        Finished("stop"),
        Used(Usage(prompt_tokens=5, completion_tokens=4, total_tokens=9)),
    ]


def test_a_stream_is_the_same_wherever_it_is_cut() -> None:
    output = written(read(STREAM))
    for chunks in strategies.halves(STREAM):
        assert read(*chunks) == read(STREAM)
        assert written(read(*chunks)) == output


@settings(max_examples=40, deadline=None)
@given(strategies.cuts(STREAM))
def test_a_stream_is_the_same_in_random_pieces(chunks: list[bytes]) -> None:
    assert read(*chunks) == read(STREAM)


def test_the_last_event_counts_without_its_blank_line() -> None:
    assert read(STREAM.rstrip()) == read(STREAM)


def test_a_text_that_only_the_end_tells_is_kept() -> None:
    token = {"text": "</s>", "special": True}
    event = {"token": token, "generated_text": "all", "details": {"finish_reason": "length"}}
    deltas = read(b"data: " + orjson.dumps(event) + b"\n\n")
    assert deltas == [Started(), TextPiece("all"), Finished("length")]


@pytest.mark.parametrize(
    ("data", "message", "status"),
    [
        (b"", "generated_text", 0),
        (STREAM[:200], "ended within", 0),
        (b"data:{broken\n\n", "not JSON", 0),
        (b'data:{"token":{"text":"\xff"}}\n\n', "not JSON", 0),
        (b"x" * (1 << 21), "longer", 0),
        (b'data:{"error":"oh","error_type":"generation"}\n\n', "oh", 424),
        (b'data:{"error":"oh","error_type":"overloaded"}\n\n', "oh", 429),
        (b'{"error":"oh","error_type":"validation"}', "oh", 422),
        (b'[{"error":"oh"}]', "oh", 0),
    ],
)
def test_a_stream_that_failed_says_why(data: bytes, message: str, status: int) -> None:
    *others, last = read(data)
    assert isinstance(last, Failed)
    assert message in last.error.message
    assert last.error.status == status
    assert not any(isinstance(delta, Finished) for delta in others)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80))
def test_a_reader_never_raises(data: bytes) -> None:
    read(data)
    read(b"data:" + data + b"\n\n")


@settings(max_examples=60, deadline=None)
@given(strategies.delta_lists(choices=2, calls=False, media_kinds=(), stop_sequences=True))
def test_a_stream_tells_what_the_whole_answer_does(deltas: list[Delta]) -> None:
    body: Any = GENERATE.render_answer(collect(deltas), CONTEXT)
    *tokens, end = events(written(deltas))
    assert "".join(each.token.text for each in tokens) == body["generated_text"]
    assert end.generated_text == body["generated_text"]
    assert end.details is not None
    for name in ("finish_reason", "generated_tokens"):
        assert getattr(end.details, name) == body["details"][name]
    assert [each.index for each in (*tokens, end)] == list(range(1, len(tokens) + 2))


def test_a_whole_answer_is_written_for_the_library() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    answer = Answer(choices=(Choice((Text("a"),), "stop", "END"),), usage=usage)
    found = TextGenerationOutput.parse_obj_as_instance(
        orjson.dumps(GENERATE.render_answer(answer, CONTEXT))
    )
    assert found.generated_text == "a"
    assert found.details is not None
    assert (found.details.finish_reason, found.details.generated_tokens) == ("stop_sequence", 2)
    assert GENERATE_ARRAY.render_answer(answer, CONTEXT) == [
        GENERATE.render_answer(answer, CONTEXT)
    ]


def test_a_full_text_begins_with_the_prompt() -> None:
    context = CONTEXT._replace(prefix="Once ")
    answer = Answer(choices=(Choice((Text("upon"),)),))
    body: Any = GENERATE.render_answer(answer, context)
    assert body["generated_text"] == "Once upon"
    *_, end = events(written(list(pieces(answer)), context))
    assert end.generated_text == "Once upon"


def test_a_failure_is_the_end_and_no_good_one() -> None:
    writer = GENERATE.writer(CONTEXT)
    error = ProviderError("busy", status=429)
    data = writer.feed([TextPiece("a"), Failed(error), TextPiece("b")])
    with pytest.raises(TextGenerationError, match="busy"):
        events(data)
    assert b'generated_text":"' not in data
    assert writer.end() == b""


def test_a_picture_in_the_answer_is_an_error_and_not_lost() -> None:
    image = Media(kind="image", data="AAAA")
    with pytest.raises(FormatError, match="image"):
        GENERATE.render_answer(Answer(choices=(Choice((image,)),)), CONTEXT)
    with pytest.raises(TextGenerationError, match="image"):
        events(GENERATE.writer(CONTEXT).feed([MediaPiece(image)]))


# ---- errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProviderError("a", "overloaded"), "overloaded"),
        (ProviderError("a", "rate_limit_error", 429), "overloaded"),
        (ProviderError("a", status=422), "validation"),
        (ProviderError("a", "invalid_request_error", 400), "validation"),
        (ProviderError("a", status=503), "generation"),
    ],
)
def test_an_error_has_a_type_of_this_format(error: ProviderError, kind: str) -> None:
    assert GENERATE.render_error(error) == {"error": "a", "error_type": kind}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            b'{"error":"Model is overloaded","error_type":"overloaded"}',
            ProviderError("Model is overloaded", "overloaded", 503),
        ),
        (b"<html></html>", ProviderError("the provider answered with status 503", status=503)),
        (b"", ProviderError("the provider answered with status 503", status=503)),
        (b"busy", ProviderError("busy", status=503)),
    ],
)
def test_an_error_is_read_whatever_it_is(body: bytes, error: ProviderError) -> None:
    assert GENERATE.parse_error(503, body) == error
