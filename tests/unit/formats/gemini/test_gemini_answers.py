"""Gemini's answers, whole and streamed, read and written."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Logprobs,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
    collect,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.gemini import GENERATE, GENERATE_ARRAY
from kong_ai_proxy.formats.gemini import read as gemini_read
from kong_ai_proxy.formats.openai.chat import CHAT
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.gemini.support import answer, array, events, fixture, stream
from tests.unit.formats.strategies import answers, cuts, delta_lists, halves, read

CONTEXT = Context(model="gemini-2.5-flash", id="abcdefghijklmnopqrstuvwx", now=1)
STREAMS = ("calls", "text", "choices")


def one(**candidate: Any) -> dict[str, Any]:
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r"}


def said(*parts: dict[str, Any], reason: str = "STOP", **more: Any) -> dict[str, Any]:
    return one(content={"parts": list(parts), "role": "model"}, finishReason=reason, **more)


def deltas(*values: Any, end: bool = True) -> list[Delta]:
    data = b"".join(b"data: " + orjson.dumps(value) + b"\r\n\r\n" for value in values)
    reader = GENERATE.reader()
    return reader.feed(data) + (reader.end() if end else [])


def failure(found: list[Delta]) -> ProviderError:
    assert isinstance(found[-1], Failed)
    return found[-1].error


class TestWholeAnswers:
    found = GENERATE.parse_answer(fixture("thinking.answer"))

    def test_thoughts_text_and_their_signature(self) -> None:
        (choice,) = collect(self.found).choices
        assert choice.said == (
            Thinking("They ask for 1 + 1.", "gemini:CrICAdHtim8="),
            Text("The answer to 1 + 1 is 2."),
        )
        assert choice.finish_reason == "stop"

    def test_who_answered_when(self) -> None:
        assert self.found[0] == Started("k1RXadbHLtjZ", "gemini-2.5-flash", 1777890030)

    def test_the_usage(self) -> None:
        assert collect(self.found).usage == Usage(
            prompt_tokens=18,
            completion_tokens=46,
            total_tokens=64,
            prompt_details={"text_tokens": 10, "image_tokens": 3, "cached_tokens": 8},
            completion_details={"text_tokens": 11, "reasoning_tokens": 35},
            cached_details={"text_tokens": 8},
            service_tier="priority",
        )

    def test_log_probabilities(self) -> None:
        (found,) = [each for each in self.found if isinstance(each, Logprobs)]
        the: dict[str, Any] = {"token": "The", "logprob": -0.01, "bytes": [84, 104, 101]}
        two = {"token": "Two", "logprob": -4.6, "bytes": [84, 119, 111]}
        assert found.content == [{**the, "top_logprobs": [the, two]}]

    def test_a_blocked_prompt_is_an_answer_that_says_so(self) -> None:
        (choice,) = collect(GENERATE.parse_answer(fixture("blocked.answer"))).choices
        assert choice.finish_reason == "content_filter"
        assert choice.refusal.startswith("Blocked by Model Armor Floor Setting")

    def test_a_block_without_a_message_names_its_reason(self) -> None:
        found = GENERATE.parse_answer({"promptFeedback": {"blockReason": "SAFETY"}})
        assert collect(found).choices[0].refusal == "the prompt was blocked: SAFETY"

    def test_a_stream_in_one_piece_is_an_answer_too(self) -> None:
        found = GENERATE.parse_answer(events(stream("text")))
        assert collect(found).choices[0].text == "Hello world"

    @pytest.mark.parametrize(
        ("reason", "theirs"),
        [
            ("STOP", "stop"),
            ("MAX_TOKENS", "length"),
            *[
                (reason.value, "content_filter")
                for reason in types.FinishReason
                if reason.value in gemini_read._REASONS
                and gemini_read._REASONS[reason.value] == "content_filter"
            ],
            ("MALFORMED_FUNCTION_CALL", "stop"),
            ("OTHER", "stop"),
            ("SOMETHING_NEW", "stop"),
        ],
    )
    def test_finish_reasons(self, reason: str, theirs: str) -> None:
        found = GENERATE.parse_answer(said({"text": "x"}, reason=reason))
        assert collect(found).choices[0].finish_reason == theirs

    def test_a_call_ends_with_tool_calls_though_google_says_stop(self) -> None:
        found = GENERATE.parse_answer(said({"functionCall": {"name": "f"}}))
        (choice,) = collect(found).choices
        assert choice.finish_reason == "tool_calls"
        assert choice.calls == (ToolCall("", "f", "{}"),)

    @pytest.mark.parametrize(
        ("more", "refusal"),
        [
            ({"finishMessage": "Malformed function call: f("}, "Malformed function call: f("),
            ({}, "the model broke off: MALFORMED_FUNCTION_CALL"),
        ],
    )
    def test_an_answer_that_broke_down_says_so(self, more: dict[str, Any], refusal: str) -> None:
        found = GENERATE.parse_answer(one(finishReason="MALFORMED_FUNCTION_CALL", **more))
        assert collect(found).choices[0].refusal == refusal

    def test_images_and_code(self) -> None:
        image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
        found = GENERATE.parse_answer(
            said(
                {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
                image,
                {**image, "thought": True},
                {"fileData": {"mimeType": "audio/wav", "fileUri": "gs://b/a"}},
                {"newKind": {}},
            )
        )
        assert collect(found).choices[0].said == (
            Text("\n```python\nprint(1)\n```\n\n```\n1\n```\n"),
            Media(kind="image", data="AAAA", media_type="image/png"),
            Media(kind="audio", url="gs://b/a", media_type="audio/wav"),
        )

    def test_what_grounds_an_answer_is_told_beside_the_usage(self) -> None:
        value = said({"text": "x"}, groundingMetadata={"webSearchQueries": ["q"]})
        value["usageMetadata"] = {"promptTokenCount": 1}
        assert collect(GENERATE.parse_answer(value)).extra == {
            "groundingMetadata": {"webSearchQueries": ["q"]}
        }

    def test_an_error_in_a_200_failed(self) -> None:
        error = failure(GENERATE.parse_answer(fixture("error")))
        assert error == ProviderError(
            "API key not valid. Please pass a valid API key.",
            type="INVALID_ARGUMENT",
            status=400,
            code="API_KEY_INVALID",
            param="contents[0].parts",
        )

    @pytest.mark.parametrize("value", [None, "x", 1, [1]])
    def test_what_is_no_answer_is_an_error(self, value: Any) -> None:
        with pytest.raises(FormatError, match="expected an object with candidates"):
            GENERATE.parse_answer(value)

    @pytest.mark.parametrize("value", [{}, {"candidates": []}, {"candidates": None}, []])
    def test_no_candidates_are_an_error_in_kongs_words(self, value: Any) -> None:
        with pytest.raises(FormatError, match=r"^no generation candidates received from Gemini"):
            GENERATE.parse_answer(value)

    @pytest.mark.parametrize(
        "candidate",
        [
            {"content": None},
            {"content": {"parts": None}},
            {"content": {"parts": [None, {}, {"text": 1}, {"functionCall": 2}]}},
            {"index": "x", "finishReason": 7, "logprobsResult": []},
            None,
        ],
    )
    def test_odd_candidates_are_read_as_far_as_they_go(self, candidate: Any) -> None:
        value = {"candidates": [candidate, {"content": {"parts": [{"text": "a"}]}}]}
        assert collect(GENERATE.parse_answer(value)).choices[0].text == "a"


class TestStreams:
    def test_calls_of_several_events(self) -> None:
        found = read(GENERATE.reader(), [stream("calls")])
        assert found == [
            Started("mLitaLflH5nR", "gemini-3-flash-preview"),
            ThinkingPiece("Two cities → two calls. "),
            TextPiece("Let me "),
            TextPiece("look \U0001f326 é."),
            CallStarted(0, "call-7", "get_weather", "EqkDAXLI2nw="),
            CallArguments(0, '{"city":"Paris"}'),
            CallStarted(1, "", "get_weather"),
            CallArguments(1, '{"city":"London","days":[]}'),
            CallStarted(2, "", "now"),
            Finished("tool_calls"),
            Used(
                Usage(
                    prompt_tokens=24,
                    completion_tokens=75,
                    total_tokens=99,
                    completion_details={"reasoning_tokens": 40},
                ),
            ),
        ]

    def test_the_last_reason_counts_and_the_signature_at_the_end_is_kept(self) -> None:
        found = read(GENERATE.reader(), [stream("text")])
        (choice,) = collect(found).choices
        assert choice.said == (Text("Hello world"), Thinking("", "gemini:EvQDCvEDAXI="))
        assert choice.finish_reason == "length"

    def test_several_candidates(self) -> None:
        first, second = collect(read(GENERATE.reader(), [stream("choices")])).choices
        assert (first.text, first.finish_reason) == ("aa", "stop")
        assert (second.text, second.finish_reason) == ("b", "content_filter")
        assert second.refusal == "unsafe"

    @pytest.mark.parametrize("name", STREAMS)
    @pytest.mark.parametrize("form", ["sse", "array", "lf"])
    def test_are_the_same_cut_at_any_byte(self, name: str, form: str) -> None:
        data = stream(name)
        forms = {"sse": data, "array": array(data), "lf": data.replace(b"\r\n", b"\n")}
        wanted = read(GENERATE.reader(), [data])
        for chunks in halves(forms[form]):
            assert read(GENERATE.reader(), chunks) == wanted

    @pytest.mark.parametrize("name", STREAMS)
    def test_come_byte_by_byte(self, name: str) -> None:
        data = stream(name)
        wanted = read(GENERATE.reader(), [data])
        for form in (data, array(data)):
            assert read(GENERATE.reader(), [form[i : i + 1] for i in range(len(form))]) == wanted

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(STREAMS), st.booleans(), st.data())
    def test_are_written_the_same_in_any_pieces(
        self, name: str, as_array: bool, data: st.DataObject
    ) -> None:
        raw = array(stream(name)) if as_array else stream(name)
        chunks = data.draw(cuts(raw))

        def written(chunks: list[bytes]) -> list[Any]:
            reader, writer = GENERATE.reader(), CHAT.writer(CONTEXT)
            out = b"".join(writer.feed(reader.feed(chunk)) for chunk in chunks)
            return [out + writer.feed(reader.end()) + writer.end()]

        assert written(chunks) == written([raw])

    def test_the_running_total_replaces_and_an_event_without_it_resets_nothing(self) -> None:
        counts = [{"promptTokenCount": 5, "candidatesTokenCount": n} for n in (1, 2)]
        first, second = (said({"text": "x"}) | {"usageMetadata": each} for each in counts)
        usage = collect(deltas(first, second, said({"text": "y"}))).usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 2, 7)

    def test_the_last_event_counts_without_its_blank_line(self) -> None:
        data = stream("text").removesuffix(b"\r\n\r\n")
        assert read(GENERATE.reader(), [data]) == read(GENERATE.reader(), [stream("text")])

    def test_a_whole_answer_in_place_of_a_stream(self) -> None:
        body = orjson.dumps(fixture("thinking.answer"))
        wanted = GENERATE.parse_answer(fixture("thinking.answer"))
        for chunks in halves(body):
            assert read(GENERATE.reader(), chunks) == wanted

    def test_a_prompt_that_is_blocked(self) -> None:
        found = deltas(fixture("blocked.answer"))
        assert found[1:3] == [
            RefusalPiece(fixture("blocked.answer")["promptFeedback"]["blockReasonMessage"]),
            Finished("content_filter"),
        ]


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "ended before the answer did"),
            (b": ping\r\n\r\n", "ended before the answer did"),
            (b"<html>Bad gateway</html>", "ended before the answer did"),
            (b"data: {\r\n\r\n", "not valid JSON"),
            (b'data: {"candidates": "\xff"}\r\n\r\n', "not valid JSON"),
            (b"data: 7\r\n\r\n", "JSON that is no answer"),
            (b'[{"candidates": []}', "the JSON array ends too soon"),
            (b"[{}}", "expected a comma"),
            (b'{"candidates": [', "the JSON array ends too soon"),
        ],
    )
    def test_failed_and_say_how(self, data: bytes, message: str) -> None:
        found = read(GENERATE.reader(), [data])
        assert message in failure(found).message
        assert not any(isinstance(each, Finished) for each in found)

    def test_what_has_come_is_told_before(self) -> None:
        data = stream("calls")
        for chunks in halves(data[: data.index(b"finishReason")]):
            found = read(GENERATE.reader(), chunks[:1])
            assert isinstance(found[-1], Failed)

    def test_one_that_broke_off_tells_what_it_has_cost(self) -> None:
        value = one(content={"parts": [{"text": "x"}]})
        value["usageMetadata"] = {"promptTokenCount": 5, "candidatesTokenCount": 1}
        *_, used, failed = deltas(value)
        assert isinstance(used, Used)
        assert used.usage.total_tokens == 6
        assert isinstance(failed, Failed)

    @pytest.mark.parametrize("form", [b"data: %s\r\n\r\n", b"[%s\n]", b",\n%s]", b"%s"])
    def test_an_error_event(self, form: bytes) -> None:
        error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
        data = form % orjson.dumps(error)
        if form.startswith(b","):
            data = b"[" + orjson.dumps(one(content={"parts": [{"text": "x"}]})) + data
        reader = GENERATE.reader()
        found = read(reader, [data])
        assert failure(found) == ProviderError("overloaded", type="UNAVAILABLE", status=503)
        assert reader.feed(b"data: {}\r\n\r\n") == []

    def test_an_endless_event_is_not_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gemini_read, "_MAX_EVENT", 1000)
        for start in (b"data: ", b"["):
            found = read(GENERATE.reader(), [start, *[b'"' + b"x" * 100] * 20])
            assert "longer than 1000 bytes" in failure(found).message

    def test_arguments_in_pieces_are_not_supported(self) -> None:
        call = {"functionCall": {"name": "f", "willContinue": True}}
        assert "streamFunctionCallArguments" in failure(deltas(said(call))).message


class TestWriting:
    def test_a_whole_answer(self) -> None:
        value = answer(
            GENERATE.render_answer(
                Answer(
                    id="x",
                    choices=(
                        Choice(
                            (
                                Thinking("hm", "QUJD"),
                                Text("hi"),
                                ToolCall("c1", "f", '{"a":[]}'),
                                Media(kind="image", data="AAAA", media_type="image/png"),
                            ),
                            "tool_calls",
                        ),
                    ),
                    usage=Usage(
                        prompt_tokens=9,
                        completion_tokens=5,
                        total_tokens=14,
                        prompt_details={"cached_tokens": 4, "text_tokens": 9},
                        completion_details={"reasoning_tokens": 2},
                    ),
                ),
                CONTEXT,
            )
        )
        assert value.candidates
        content = value.candidates[0].content
        assert content
        assert content.parts
        thought, text, call, image = content.parts
        assert (thought.text, thought.thought) == ("hm", True)
        assert (text.text, text.thought_signature) == ("hi", b"ABC")
        assert value.function_calls == [types.FunctionCall(id="c1", name="f", args={"a": []})]
        assert call.function_call
        assert image.inline_data
        assert value.candidates[0].finish_reason == types.FinishReason.STOP
        assert (value.model_version, value.response_id) == ("gemini-2.5-flash", "x")
        usage = value.usage_metadata
        assert usage
        assert (usage.prompt_token_count, usage.candidates_token_count) == (9, 3)
        assert (usage.thoughts_token_count, usage.cached_content_token_count) == (2, 4)
        assert usage.total_token_count == 14

    @pytest.mark.parametrize("name", ["calls", "text"])
    def test_a_stream_of_geminis_own_is_written_as_it_was(self, name: str) -> None:
        reader, writer = GENERATE.reader(), GENERATE.writer(CONTEXT)
        out = b"".join(writer.feed(reader.feed(c)) for c in stream(name).splitlines(True))
        out += writer.feed(reader.end()) + writer.end()
        for event in events(out):
            answer(event)
        assert collect(read(GENERATE.reader(), [out])) == collect(
            read(GENERATE.reader(), [stream(name)])
        )

    def test_an_array_for_those_who_did_not_ask_for_events(self) -> None:
        writer = GENERATE_ARRAY.writer(CONTEXT)
        first = writer.feed([Started(), TextPiece("a")])
        assert orjson.loads(first + b"]")[0]["candidates"][0]["content"]["parts"] == [{"text": "a"}]
        assert writer.feed([Finished("length")]) == b""
        value = orjson.loads(first + writer.end())
        assert value[1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
        assert writer.end() == b""
        assert (GENERATE_ARRAY.stream_type, GENERATE.stream_type) == (
            "application/json",
            "text/event-stream",
        )

    def test_an_empty_answer_still_has_a_part(self) -> None:
        (event,) = events(GENERATE.writer(CONTEXT).end())
        assert event["candidates"] == [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ]

    def test_calls_wait_for_their_arguments_and_what_follows_waits_behind_them(self) -> None:
        writer = GENERATE.writer(CONTEXT)
        (first,) = events(writer.feed([TextPiece("a"), CallStarted(0, "i", "f", "QUJD")]))
        assert first["candidates"][0]["content"]["parts"] == [{"text": "a"}]
        held = writer.feed([CallStarted(1, "", "g"), CallArguments(1, '{"b"'), TextPiece("c")])
        assert held == b""
        assert writer.feed([CallArguments(0, '{"a":1}'), CallArguments(1, ":2}")]) == b""
        (last,) = events(writer.feed([Finished("tool_calls")]))
        assert last["candidates"][0]["content"]["parts"] == [
            {
                "functionCall": {"name": "f", "args": {"a": 1}, "id": "i"},
                "thoughtSignature": "QUJD",
            },
            {"functionCall": {"name": "g", "args": {"b": 2}}},
            {"text": "c"},
        ]

    @pytest.mark.parametrize(
        ("reason", "theirs"),
        [("tool_calls", "MALFORMED_FUNCTION_CALL"), ("length", "MAX_TOKENS")],
    )
    def test_arguments_that_are_no_object_are_said_to_be_malformed(
        self, reason: Any, theirs: str
    ) -> None:
        call = ToolCall("i", "f", '{"a": ')
        value: Any = GENERATE.render_answer(Answer(choices=(Choice((call,), reason),)), CONTEXT)
        (candidate,) = value["candidates"]
        assert candidate["finishReason"] == theirs
        assert candidate["finishMessage"] == 'the arguments of f are not a JSON object: {"a": '

    @pytest.mark.parametrize("codec", [GENERATE, GENERATE_ARRAY])
    def test_an_error_is_the_end(self, codec: Any) -> None:
        writer = codec.writer(CONTEXT)
        out = writer.feed([TextPiece("a"), Failed(ProviderError("broken", status=429))])
        out += writer.feed([TextPiece("b")]) + writer.end()
        found = events(out) if codec is GENERATE else orjson.loads(out)
        assert found[-1] == {
            "error": {"code": 429, "message": "broken", "status": "RESOURCE_EXHAUSTED"}
        }
        assert len(found) == 2
        assert b"finishReason" not in out

    def test_redacted_thoughts_have_no_place(self) -> None:
        assert GENERATE.writer(CONTEXT).feed([ThinkingRedacted("x")]) == b""

    def test_signatures_that_nothing_follows_get_an_empty_part(self) -> None:
        writer = GENERATE.writer(CONTEXT)
        out = writer.feed([ThinkingSigned("QUJD"), CallStarted(0, "", "f"), ThinkingSigned("REVG")])
        out += writer.feed([Finished("tool_calls")])
        parts = [p for e in events(out) for p in e["candidates"][0]["content"]["parts"]]
        assert parts == [
            {"text": "", "thoughtSignature": "QUJD"},
            {"functionCall": {"name": "f", "args": {}}},
            {"text": "", "thoughtSignature": "REVG"},
        ]


@settings(max_examples=60, deadline=None)
@given(answers(redacted=False, refusals=False, signatures=False, logprobs=False))
def test_what_gemini_can_say_comes_back_whole(said: Answer) -> None:
    value: Any = GENERATE.render_answer(said, CONTEXT)
    answer(value)
    again = collect(GENERATE.parse_answer(value))
    assert again.choices == said.choices
    assert again.usage == (said.usage or again.usage)
    assert (again.id, again.model) == (said.id, said.model)


@settings(max_examples=60, deadline=None)
@given(delta_lists(logprobs=False))
def test_a_stream_says_what_the_whole_answer_says(pieces: list[Delta]) -> None:
    whole: Any = GENERATE.render_answer(collect(pieces), CONTEXT)
    writer = GENERATE.writer(CONTEXT)
    out = b"".join(writer.feed([piece]) for piece in pieces) + writer.end()
    for event in events(out):
        answer(event)
    streamed = collect(GENERATE.parse_answer(events(out)))
    assert streamed == collect(GENERATE.parse_answer(whole))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            400,
            orjson.dumps(fixture("error")),
            ProviderError(
                "API key not valid. Please pass a valid API key.",
                type="INVALID_ARGUMENT",
                status=400,
                code="API_KEY_INVALID",
                param="contents[0].parts",
            ),
        ),
        (
            429,
            b'[{"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}]',
            ProviderError("slow", type="RESOURCE_EXHAUSTED", status=429),
        ),
        (502, b"<html>", ProviderError("the provider answered with status 502", status=502)),
        (503, b"", ProviderError("the provider answered with status 503", status=503)),
        (500, b"[]", ProviderError("[]", status=500)),
    ],
)
def test_errors_are_read(status: int, body: bytes, error: ProviderError) -> None:
    assert GENERATE.parse_error(status, body) == error


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ProviderError("m", type="overloaded_error", status=529), 529, "UNAVAILABLE"),
        (ProviderError("m", type="NOT_FOUND"), 404, "NOT_FOUND"),
        (ProviderError("m", status=413), 413, "INVALID_ARGUMENT"),
        (ProviderError("m"), 500, "INTERNAL"),
    ],
)
def test_errors_are_written(error: ProviderError, code: int, status: str) -> None:
    assert GENERATE.render_error(error) == {
        "error": {"code": code, "message": "m", "status": status}
    }
