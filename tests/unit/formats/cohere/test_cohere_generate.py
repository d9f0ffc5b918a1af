"""Cohere's completions of prompts, read and written."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cohere.types import GenerateStreamedResponse, Generation
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.cohere import GENERATE
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
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats import strategies
from tests.unit.formats.cohere import judge

CONTEXT = Context(model="command", id="abcdefghijklmnopqrstuvwx", now=1)
FIXTURE = orjson.loads((judge.FIXTURES / "generate.json").read_bytes())
STREAM = b"".join(orjson.dumps(line) + b"\n" for line in FIXTURE["stream"]["lines"])
USAGE = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)


def prompt(text: str = "Once", **more: Any) -> Conversation:
    messages = (Message("user", (Text(text),)),)
    return Conversation(messages=messages, model="command", is_completion=True, **more)


def read(*chunks: bytes) -> list[Delta]:
    return strategies.read(GENERATE.reader(), list(chunks))


def written(deltas: list[Delta], context: Context = CONTEXT) -> bytes:
    writer = GENERATE.writer(context)
    return b"".join([writer.feed([delta]) for delta in deltas]) + writer.end()


def lines(data: bytes) -> list[Any]:
    found = [orjson.loads(line) for line in data.splitlines()]
    for each in found:
        judge.check(GenerateStreamedResponse, without_what_the_library_lacks(each))
    return found


def without_what_the_library_lacks(event: dict[str, Any]) -> dict[str, Any]:
    """The stream's end carries the usage, which Kong reads there, as the whole answer does."""
    if "response" not in event:
        return event
    return event | {"response": {k: v for k, v in event["response"].items() if k != "meta"}}


# ---- requests


def test_a_prompt_is_rendered_with_coheres_names() -> None:
    knobs = {"max_tokens": 9, "top_p": 1, "top_k": 4, "n": 2, "stop": ["END"], "truncate": "NONE"}
    rendered = GENERATE.render_request(prompt(settings=knobs, stream=True))
    judge.check_request(rendered.body, "generate_stream")
    assert rendered.dropped == ()
    assert rendered.body == {
        "model": "command",
        "prompt": "Once",
        "stream": True,
        "max_tokens": 9,
        "p": 0.99,
        "k": 4,
        "num_generations": 2,
        "end_sequences": ["END"],
        "truncate": "NONE",
    }


def test_what_was_read_is_made_again() -> None:
    body = {
        "model": "command",
        "prompt": "Once",
        "stream": False,
        "max_tokens": 9,
        "p": 0.5,
        "k": 4,
        "num_generations": 2,
        "end_sequences": ["END"],
        "raw_prompting": True,
    }
    talk = GENERATE.parse_request({**body, "seed": None})
    assert talk.is_completion
    assert talk.prompt == "Once"
    assert GENERATE.render_request(talk).body == body


def test_both_kinds_of_stops_are_read() -> None:
    talk = GENERATE.parse_request({"prompt": "", "stop_sequences": ["a"], "end_sequences": ["b"]})
    assert talk.settings == {"stop": ["b", "a"]}


def test_what_generate_does_not_know_is_dropped_and_named() -> None:
    talk = prompt(
        settings={"suffix": "x", "logprobs": 2, "n": 1},
        output=OutputFormat(),
        reasoning=Reasoning(effort="low"),
    )
    names = ("suffix", "logprobs", "reasoning_effort", "response_format")
    assert GENERATE.render_request(talk).dropped == names


def test_only_text_can_be_continued() -> None:
    image = Message("user", (Text("a"), Media(kind="image", data="AAAA")))
    with pytest.raises(FormatError, match=r"messages\[0\]\.content\[1\]"):
        GENERATE.render_request(Conversation(messages=(image,)))
    with pytest.raises(FormatError, match="tools"):
        GENERATE.render_request(prompt(tools=(Tool(name="a"),)))


@pytest.mark.parametrize("body", [{}, {"prompt": ["a"]}, {"prompt": "a", "end_sequences": "b"}])
def test_what_is_wrong_in_a_request_is_named(body: dict[str, object]) -> None:
    with pytest.raises(FormatError, match=r"prompt|end_sequences"):
        GENERATE.parse_request(body)


# ---- answers


def test_a_whole_answer_is_read() -> None:
    answer = collect(GENERATE.parse_answer(FIXTURE["answer"]["body"]))
    assert answer.id == "6afae9c2-3375-4d0e-8d18-2e9eb7f2c3ec"
    assert answer.choices == (
        Choice((Text("LLMs, or Large Language Models, are neural networks."),)),
    )
    assert answer.usage == Usage(prompt_tokens=8, completion_tokens=442, total_tokens=450)


def test_alternatives_are_read() -> None:
    generations = [{"id": str(n), "text": f"t{n}"} for n in range(3)]
    answer = collect(GENERATE.parse_answer({"id": "a", "generations": generations}))
    assert [choice.text for choice in answer.choices] == ["t0", "t1", "t2"]


def test_an_error_that_is_a_whole_answer_is_one() -> None:
    assert GENERATE.parse_answer({"message": "no"}) == [Failed(ProviderError("no"))]


@pytest.mark.parametrize("value", [None, [], {"generations": {}}, {"generations": [{}]}])
def test_something_else_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        GENERATE.parse_answer(value)


def test_a_stream_is_read() -> None:
    assert read(STREAM) == [
        Started(),
        TextPiece(" LLMs"),
        TextPiece(" learn – größer"),
        Finished("length"),
        Used(USAGE),
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


def test_the_last_line_counts_without_its_end() -> None:
    assert read(STREAM.rstrip()) == read(STREAM)


def test_a_text_that_only_the_end_tells_is_kept() -> None:
    end = STREAM.splitlines()[-1]
    assert TextPiece(" LLMs learn – größer") in read(end)


@pytest.mark.parametrize(
    ("reason", "ours"),
    [("COMPLETE", "stop"), ("ERROR_LIMIT", "length"), ("ERROR_TOXIC", "content_filter")],
)
def test_finish_reasons_are_read(reason: str, ours: str) -> None:
    event = {"is_finished": True, "event_type": "stream-end", "finish_reason": reason}
    assert read(orjson.dumps(event))[-1] == Finished(ours)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "last event"),
        (STREAM[:80], "ended within a line"),
        (b"{broken\n", "not JSON"),
        (b'{"text":"\xff"}\n', "not JSON"),
        (b"x" * (1 << 21), "longer"),
        (b'{"message":"too many"}\n', "too many"),
        (
            b'{"is_finished":true,"event_type":"stream-error","finish_reason":"ERROR","err":"oh"}',
            "oh",
        ),
        (b'{"is_finished":true,"finish_reason":"TIMEOUT","response":{}}\n', "longer than"),
    ],
)
def test_a_stream_that_failed_says_why(data: bytes, message: str) -> None:
    *others, last = read(data)
    assert isinstance(last, Failed)
    assert message in last.error.message
    assert not any(isinstance(delta, Finished) for delta in others)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80))
def test_a_reader_never_raises(data: bytes) -> None:
    read(data)


@settings(max_examples=60, deadline=None)
@given(strategies.delta_lists(choices=2, calls=False, media_kinds=(), stop_sequences=True))
def test_a_stream_tells_what_the_whole_answer_does(deltas: list[Delta]) -> None:
    body: Any = GENERATE.render_answer(collect(deltas), CONTEXT)
    judge.check(Generation, body)
    *texts, end = lines(written(deltas))
    told = dict.fromkeys(range(len(body["generations"])), "")
    for each in texts:
        told[each["index"]] += each["text"]
    assert [told[each["index"]] for each in body["generations"]] == [
        each["text"] for each in body["generations"]
    ]
    for each in end["response"]["generations"]:
        del each["finish_reason"]
    assert end["response"] == body


def test_a_written_answer_is_what_coheres_library_reads() -> None:
    choices = (Choice((Text("a"),)), Choice((Text("b"),), "length"))
    answer = Answer(id="cmpl-1", choices=choices, usage=USAGE)
    found = judge.client(orjson.dumps(GENERATE.render_answer(answer, CONTEXT))).generate(prompt="p")
    assert [each.text for each in found.generations] == ["a", "b"]
    assert found.meta.billed_units.output_tokens == 2
    data = written(list(pieces(answer)))
    events = list(judge.client(data, GENERATE.stream_type).generate_stream(prompt="p"))
    assert [each.event_type for each in events] == [*["text-generation"] * 2, "stream-end"]
    assert [g.finish_reason for g in events[-1].response.generations] == ["COMPLETE", "MAX_TOKENS"]


def test_an_echo_begins_with_the_prompt() -> None:
    data = written([TextPiece("b"), Finished("stop")], CONTEXT._replace(prefix="a"))
    assert lines(data)[0]["text"] == "ab"


def test_a_failure_is_the_end_and_no_good_one() -> None:
    writer = GENERATE.writer(CONTEXT)
    data = writer.feed([TextPiece("a"), Failed(ProviderError("no")), TextPiece("b")])
    assert [each["event_type"] for each in lines(data)] == ["text-generation", "stream-error"]
    assert writer.end() == b""


def test_a_picture_in_the_answer_is_an_error_and_not_lost() -> None:
    image = Media(kind="image", data="AAAA")
    with pytest.raises(FormatError, match="image"):
        GENERATE.render_answer(Answer(choices=(Choice((image,)),)), CONTEXT)
    assert lines(GENERATE.writer(CONTEXT).feed([MediaPiece(image)]))[0]["finish_reason"] == "ERROR"


def test_errors_are_coheres() -> None:
    error = GENERATE.parse_error(400, b'{"message":"no"}')
    assert error == ProviderError("no", status=400)
    assert GENERATE.render_error(error) == {"message": "no"}
