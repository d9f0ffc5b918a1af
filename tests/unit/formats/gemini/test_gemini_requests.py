"""Requests in Gemini's format, read from clients and written for the provider."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Rendered,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import GENERATE
from tests.unit.formats.gemini.support import fixture, judged
from tests.unit.formats.strategies import conversations, normal

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def parse(body: dict[str, Any], **said: Any) -> Conversation:
    return GENERATE.parse_request(body, **said)


def ask(*blocks: Any, **more: Any) -> Conversation:
    return Conversation(messages=(Message("user", blocks or (Text("Hi"),)),), **more)


def render(conversation: Conversation) -> dict[str, Any]:
    return judged(GENERATE.render_request(conversation).body)


def contents(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


class TestReading:
    said = parse(fixture("function_calling.request"), model="gemini-3-pro-preview", stream=True)

    def test_the_turns(self) -> None:
        system, user, model, results = self.said.messages
        assert system == Message("system", (Text("You are terse."), Text("Answer in English.")))
        assert user.blocks[1:] == (
            Media(kind="image", data="iVBORw0KGgo=", media_type="image/png"),
            Media(kind="file", url="gs://bucket/report.pdf", media_type="application/pdf"),
        )
        assert model == Message(
            "assistant",
            (
                Thinking("I need the weather of two cities."),
                ToolCall("a1", "get_weather", '{"city":"Paris"}', "CpcHAVSoXO4="),
                ToolCall("a2", "get_weather", '{"city":"London"}'),
            ),
        )
        assert results.blocks == (
            ToolResult("a1", (Text('{"temperature":15,"unit":"C"}'),), name="get_weather"),
            ToolResult("a2", (Text("no such city"),), name="get_weather", is_error=True),
        )

    def test_the_tools(self) -> None:
        weather, now = self.said.tools
        assert (weather.name, weather.parameters) == ("get_weather", WEATHER)
        assert now.parameters == {
            "type": "object",
            "properties": {},
            "additionalProperties": False,
        }
        assert self.said.native_tools == ({"googleSearch": {}},)
        assert self.said.tool_choice == ToolChoice("tool", "get_weather")

    def test_the_settings(self) -> None:
        assert self.said.settings == {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "max_tokens": 800,
            "stop": ["END"],
            "seed": 7,
            "n": 2,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "logprobs": True,
            "top_logprobs": 3,
            "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"},
            "safetySettings": [
                {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}
            ],
            "cachedContent": "cachedContents/abc",
        }
        assert self.said.reasoning == Reasoning(effort="low", visible=True)
        assert self.said.output is not None
        assert self.said.output.schema is not None
        assert self.said.output.schema["properties"] == {"answer": {"type": "string"}}

    def test_model_and_streaming_are_said_by_the_path(self) -> None:
        assert (self.said.model, self.said.stream) == ("gemini-3-pro-preview", True)
        assert self.said.wants_usage

    def test_what_is_read_is_written_as_it_was(self) -> None:
        body = fixture("function_calling.request")
        assert render(self.said) == body


class TestSnakeCase:
    said = parse(fixture("snake_case.request"), model="gemini-2.5-flash")

    def test_is_read_like_camel_case_and_without_brackets_around_one(self) -> None:
        assert self.said.system == (Text("You are a cat. Your name is Neko."),)
        assert self.said.turns[0] == Message(
            "user",
            (Text("Hello there"), Media(kind="image", data="/9j/4AAQ", media_type="image/jpeg")),
        )
        assert self.said.reasoning == Reasoning(budget=-1)
        assert self.said.settings["max_tokens"] == 100
        assert self.said.settings["labels"] == {"team": "search"}

    def test_googles_schemas_become_json_schemas(self) -> None:
        assert self.said.tools[0].parameters == {
            "type": "object",
            "properties": {
                "level": {"type": ["integer", "null"], "minimum": 0},
                "modes": {
                    "type": "array",
                    "items": {"type": "string", "enum": ["day", "night"]},
                    "maxItems": 3,
                },
            },
        }

    def test_what_else_the_tool_config_says_is_kept(self) -> None:
        assert self.said.tool_choice == ToolChoice("auto")
        assert render(self.said)["toolConfig"] == {
            "functionCallingConfig": {"mode": "AUTO"},
            "retrievalConfig": {"language_code": "en"},
        }


def test_calls_without_ids_get_some_that_their_results_share() -> None:
    call = {"functionCall": {"name": "f"}}
    result = {"functionResponse": {"name": "f", "response": {"result": "x"}}}
    turns = [
        {"parts": [{"text": "go"}]},
        {"role": "model", "parts": [call, {"functionCall": {"name": "g", "args": {"a": 1}}}, call]},
        {"role": "function", "parts": [result, result]},
        {"parts": [{"functionResponse": {"name": "g", "response": {"output": "y"}}}]},
        {"role": "MODEL", "parts": [call]},
        {"role": "User", "parts": [result]},
    ]
    said = parse({"contents": turns})
    ids = [b.id for m in said.messages for b in m.blocks if isinstance(b, ToolCall)]
    answered = [b.call_id for m in said.messages for b in m.blocks if isinstance(b, ToolResult)]
    assert ids == ["call_1", "call_2", "call_3", "call_4"]
    assert answered == ["call_1", "call_3", "call_2", "call_4"]


def test_a_result_for_no_known_call_keeps_its_name() -> None:
    result = {"functionResponse": {"name": "f", "response": {}}}
    (message,) = parse({"contents": {"parts": [result]}}).messages
    assert message.blocks == (ToolResult("call_1", (Text(""),), name="f"),)


def test_results_may_hold_media() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    body = {"name": "f", "response": {}, "parts": [image]}
    (message,) = parse({"contents": {"parts": [{"functionResponse": body}]}}).messages
    (result,) = message.blocks
    assert isinstance(result, ToolResult)
    assert result.content == (Media(kind="image", data="AAAA", media_type="image/png"),)


def test_only_the_allowed_functions_are_offered() -> None:
    declared = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    config = {"mode": "ANY", "allowedFunctionNames": ["a", "c"]}
    said = parse(
        contents(
            tools=[{"functionDeclarations": declared}],
            toolConfig={"functionCallingConfig": config},
        )
    )
    assert [tool.name for tool in said.tools] == ["a", "c"]
    assert said.tool_choice == ToolChoice("required")


def test_null_members_count_as_absent() -> None:
    said = parse(
        contents(tools=None, generationConfig={"temperature": None}, systemInstruction=None)
    )
    assert said.settings == {}
    assert said.tools == ()


def test_an_enum_as_answer_stays_geminis_own() -> None:
    config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING"}}
    said = parse(contents(generationConfig=config))
    assert said.output is None
    assert said.settings == {"generationConfig": config}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "contents: expected at least one content"),
        ({"contents": "Hi"}, "contents: expected an array"),
        ({"contents": [1]}, r"contents\[0\]: expected an object"),
        ({"contents": [{"role": "boss", "parts": []}]}, r"contents\[0\].role: expected user"),
        ({"contents": [{"parts": [{"text": 1}]}]}, r"contents\[0\].parts\[0\].text: expected"),
        ({"contents": [{"parts": [{}]}]}, r"parts\[0\]: expected text, inlineData"),
        (
            {"contents": [{"parts": [{"executableCode": {"code": "1"}}]}]},
            "nothing else can be carried over",
        ),
        (
            {
                "contents": [
                    {"parts": [{"fileData": {"fileUri": "x"}, "videoMetadata": {"fps": 1}}]}
                ]
            },
            "videoMetadata cannot be carried over",
        ),
        (
            {"contents": [{"parts": [{"functionCall": {"name": "f", "args": [1]}}]}]},
            r"functionCall.args: expected an object",
        ),
        (contents(tools=[{"functionDeclarations": [{"description": "x"}]}]), r"\.name: expected"),
        (contents(systemInstruction={"parts": [{"inlineData": {}}]}), "systemInstruction.parts"),
        (
            contents(toolConfig={"functionCallingConfig": {"mode": "SOME"}}),
            "mode: expected AUTO, ANY, NONE or VALIDATED",
        ),
        (contents(generationConfig=[]), "generationConfig: expected an object"),
    ],
)
def test_what_is_no_request_is_an_error_that_says_where(body: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(body)


class TestWriting:
    def test_neighbouring_turns_are_one_and_system_texts_stand_apart(self) -> None:
        said = Conversation(
            messages=(
                Message("system", (Text("a"),)),
                Message("user", (Text("b"),)),
                Message("system", (Text("c"), Text(""))),
                Message("user", (Text("d"),), name="bob"),
            )
        )
        assert render(said) == {
            "contents": [{"role": "user", "parts": [{"text": "b"}, {"text": "d"}]}],
            "systemInstruction": {"parts": [{"text": "a"}, {"text": "c"}]},
        }

    def test_text_beside_calls_survives_and_results_stand_alone(self) -> None:
        calls = (ToolCall("1", "f", '{"a": []}'), ToolCall("2", "g", ""))
        said = Conversation(
            messages=(
                Message("user", (Text("go"),)),
                Message("assistant", (Text("I look."), *calls)),
                Message("user", (Text("and?"), ToolResult("2", (Text("two"),)))),
                Message("user", (ToolResult("1", (Text('{"one": 1}'),)),)),
            )
        )
        _, model, results, others = render(said)["contents"]
        assert model["parts"] == [
            {"text": "I look."},
            {"functionCall": {"name": "f", "args": {"a": []}, "id": "1"}},
            {"functionCall": {"name": "g", "args": {}, "id": "2"}},
        ]
        assert results["parts"] == [
            {"functionResponse": {"name": "g", "response": {"result": "two"}, "id": "2"}},
            {"functionResponse": {"name": "f", "response": {"one": 1}, "id": "1"}},
        ]
        assert others == {"role": "user", "parts": [{"text": "and?"}]}

    def test_a_failed_call_is_an_error(self) -> None:
        call = Message("assistant", (ToolCall("1", "f"),))
        failed = Message("user", (ToolResult("1", (Text("no"),), is_error=True),))
        (_, result) = render(Conversation(messages=(call, failed)))["contents"]
        assert result["parts"][0]["functionResponse"]["response"] == {"error": "no"}

    @pytest.mark.parametrize(
        ("model", "nested"), [("gemini-3-flash-preview", True), ("gemini-2.5-pro", False)]
    )
    def test_media_of_results_are_inside_where_the_model_knows_that(
        self, model: str, nested: bool
    ) -> None:
        image = Media(kind="image", data="AAAA", media_type="image/png")
        call = Message("assistant", (ToolCall("1", "f"),))
        result = Message("user", (ToolResult("1", (Text("see"), image)),))
        body = render(Conversation(messages=(call, result), model=model))
        part = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
        assert ("parts" in body["contents"][1]["parts"][0]["functionResponse"]) is nested
        assert (part in body["contents"][-1]["parts"]) is not nested

    def test_a_result_that_no_call_belongs_to_is_an_error(self) -> None:
        with pytest.raises(FormatError, match=r"messages\[0\].content\[0\]: the result is of"):
            render(ask(ToolResult("x", (Text("1"),))))

    @pytest.mark.parametrize(
        ("media", "part"),
        [
            (
                Media(kind="image", url="https://e.com/a.png?x=1"),
                {"fileData": {"mimeType": "image/png", "fileUri": "https://e.com/a.png?x=1"}},
            ),
            (
                Media(kind="image", url="https://e.com/a"),
                {"fileData": {"fileUri": "https://e.com/a"}},
            ),
            (
                Media(kind="video", url="gs://b/v", media_type="video/mp4"),
                {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v"}},
            ),
            (
                Media(kind="file", file_id="files/abc"),
                {
                    "fileData": {
                        "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"
                    }
                },
            ),
            (
                Media(kind="audio", data="AAAA", media_type="audio/wav"),
                {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
            ),
        ],
    )
    def test_media(self, media: Media, part: dict[str, Any]) -> None:
        assert render(ask(media))["contents"][0]["parts"] == [part]

    @pytest.mark.parametrize(
        ("media", "message"),
        [
            (Media(kind="image", data="AAAA"), "media type"),
            (Media(kind="file", file_id="file-1"), "Gemini has no file 'file-1'"),
        ],
    )
    def test_media_that_gemini_cannot_have(self, media: Media, message: str) -> None:
        with pytest.raises(FormatError, match=rf"messages\[0\].content\[0\]: .*{message}"):
            render(ask(media))

    def test_a_function_without_parameters_has_none(self) -> None:
        (entry,) = render(ask(tools=(Tool(name="f", description="d"),)))["tools"]
        assert entry == {"functionDeclarations": [{"name": "f", "description": "d"}]}

    @pytest.mark.parametrize(
        ("schema", "member"),
        [
            (WEATHER, "parameters"),
            ({"type": "object", "properties": {}}, "parametersJsonSchema"),
            ({**WEATHER, "additionalProperties": False}, "parametersJsonSchema"),
            (
                {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
                "parametersJsonSchema",
            ),
            ({"type": "object", "properties": {"a": {"const": 1}}}, "parametersJsonSchema"),
            (
                {"type": "object", "properties": {"a": {"type": "integer", "enum": [1]}}},
                "parametersJsonSchema",
            ),
            ({"type": "object", "properties": {"a": {"type": "array"}}}, "parametersJsonSchema"),
            (
                {"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}},
                "parametersJsonSchema",
            ),
            (
                {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}]}}},
                "parameters",
            ),
        ],
    )
    def test_schemas_go_where_they_are_understood(
        self, schema: dict[str, Any], member: str
    ) -> None:
        body = render(ask(tools=(Tool(name="f", parameters=schema),)))
        assert body["tools"][0]["functionDeclarations"][0][member] == schema

    def test_tools_of_geminis_own_are_passed_on_and_others_refused(self) -> None:
        entry: dict[str, object] = {"google_search": {}}
        assert render(ask(native_tools=(entry,)))["tools"] == [{"googleSearch": {}}]
        with pytest.raises(FormatError, match=r"tools\[0\]: expected a function, or one of"):
            render(ask(native_tools=({"type": "web_search"},)))

    @pytest.mark.parametrize(
        ("choice", "config"),
        [
            (ToolChoice("auto"), {"mode": "AUTO"}),
            (ToolChoice("none"), {"mode": "NONE"}),
            (ToolChoice("required"), {"mode": "ANY"}),
            (ToolChoice("tool", "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ],
    )
    def test_tool_choices(self, choice: ToolChoice, config: dict[str, Any]) -> None:
        body = render(ask(tool_choice=choice))
        assert body["toolConfig"] == {"functionCallingConfig": config}

    def test_output_formats(self) -> None:
        assert render(ask(output=OutputFormat()))["generationConfig"] == {
            "responseMimeType": "application/json"
        }
        strict = {**WEATHER, "additionalProperties": False}
        body = render(ask(output=OutputFormat(schema=strict, name="x", strict=True)))
        assert body["generationConfig"]["responseJsonSchema"] == strict

    def test_what_gemini_does_not_know_is_dropped_and_named(self) -> None:
        said = ask(
            parallel_tool_calls=False,
            settings={"logit_bias": {"1": 2}, "user": "u", "service_tier": "flex", "top_k": 3},
        )
        rendered = GENERATE.render_request(said)
        assert judged(rendered.body)["generationConfig"] == {"topK": 3}
        assert set(rendered.dropped) == {
            "logit_bias",
            "user",
            "service_tier",
            "parallel_tool_calls",
        }

    def test_geminis_own_members_pass_and_are_merged_into_what_is_rendered(self) -> None:
        said = ask(
            model="gemini-2.5-flash",
            reasoning=Reasoning(effort="low", visible=True),
            settings={
                "temperature": 1,
                "generation_config": {"thinking_config": {"thinkingBudget": 5}, "seed": 1},
                "safety_settings": [],
                "cachedContent": "cachedContents/x",
                "labels": {"a_b": "c"},
            },
            extra={"generationConfig": {"imageConfig": {"aspectRatio": "1:1"}}},
        )
        body = GENERATE.render_request(said).body
        assert body["generationConfig"] == {
            "temperature": 1,
            "seed": 1,
            "thinkingConfig": {"thinkingBudget": 5, "includeThoughts": True},
            "imageConfig": {"aspectRatio": "1:1"},
        }
        assert body["safetySettings"] == []
        assert body["cachedContent"] == "cachedContents/x"
        assert body["labels"] == {"a_b": "c"}

    def test_a_budget_of_the_clients_own_wins_over_the_level_for_its_effort(self) -> None:
        said = ask(
            model="gemini-3-flash-preview",
            reasoning=Reasoning(effort="low"),
            extra={"google": {"thinking_config": {"thinking_budget": 9}, "cached_content": "c"}},
        )
        body = render(said)
        assert body["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 9}}
        assert body["cachedContent"] == "c"

    def test_logprobs_and_modalities(self) -> None:
        said = ask(settings={"logprobs": True, "top_logprobs": 2, "modalities": ["text", "image"]})
        assert render(said)["generationConfig"] == {
            "responseLogprobs": True,
            "logprobs": 2,
            "responseModalities": ["TEXT", "IMAGE"],
        }
        completion = render(ask(settings={"logprobs": 3}, is_completion=True))
        assert completion["generationConfig"] == {"responseLogprobs": True, "logprobs": 3}

    def test_nothing_to_say_is_an_error(self) -> None:
        with pytest.raises(FormatError, match="expected at least one"):
            render(ask(Text("")))


class TestSystemPrompts:
    said = Conversation(
        messages=(Message("system", (Text("s"),)), Message("user", (Text("u"),))),
    )

    def test_of_gemini_1_are_refused_with_kongs_text(self) -> None:
        with pytest.raises(
            FormatError, match=r"^system prompts aren't supported on gemini-1.0 models$"
        ):
            render(replace(self.said, model="models/gemini-1.0-pro"))

    @pytest.mark.parametrize("model", ["gemma-3-27b-it", "gemma-3n-e4b-it", "gemma2-9b"])
    def test_of_gemma_begin_the_first_turn(self, model: str) -> None:
        body = render(replace(self.said, model=model))
        assert body == {"contents": [{"role": "user", "parts": [{"text": "s"}, {"text": "u"}]}]}

    def test_alone_are_the_turn(self) -> None:
        said = replace(self.said, messages=self.said.messages[:1])
        assert render(said) == {"contents": [{"role": "user", "parts": [{"text": "s"}]}]}


class TestSignatures:
    def model_parts(self, model: str, *blocks: Any) -> Any:
        said = Conversation(
            messages=(Message("user", (Text("u"),)), Message("assistant", blocks)), model=model
        )
        return render(said)["contents"][1]["parts"]

    def test_of_thoughts_come_back_with_the_text_behind_them(self) -> None:
        parts = self.model_parts(
            "gemini-3-pro", Thinking("t", "gemini:QUJD"), Text("a"), Thinking("", "gemini:REVG")
        )
        assert parts == [
            {"text": "t", "thought": True},
            {"text": "a", "thoughtSignature": "QUJD"},
            {"text": "", "thoughtSignature": "REVG"},
        ]

    def test_of_other_providers_are_not_sent(self) -> None:
        parts = self.model_parts("gemini-3-pro", Thinking("t", "EqQB"), Thinking("", redacted="x"))
        assert parts == [{"text": "t", "thought": True}]

    def test_of_calls_come_back_with_them(self) -> None:
        first, second = ToolCall("1", "f", "{}", "QUJD"), ToolCall("2", "f")
        one, two = self.model_parts("gemini-3-pro", first, second)
        assert one["thoughtSignature"] == "QUJD"
        assert "thoughtSignature" not in two

    @pytest.mark.parametrize(
        ("model", "signed"), [("gemini-3.1-pro-preview", True), ("gemini-2.5-flash", False)]
    )
    def test_lost_ones_are_made_up_for_where_they_are_checked(
        self, model: str, signed: bool
    ) -> None:
        one, two = self.model_parts(model, ToolCall("1", "f"), ToolCall("2", "f"))
        assert ("thoughtSignature" in one) is signed
        assert "thoughtSignature" not in two


@pytest.mark.parametrize(
    ("model", "reasoning", "config"),
    [
        ("gemini-2.5-flash", Reasoning(effort="none"), {"thinkingBudget": 0}),
        ("gemini-2.5-pro", Reasoning(effort="none"), {"thinkingBudget": 128}),
        ("gemini-2.5-flash", Reasoning(effort="minimal"), {"thinkingBudget": 1024}),
        ("gemini-2.5-flash", Reasoning(effort="medium"), {"thinkingBudget": 8192}),
        ("gemini-2.5-flash", Reasoning(effort="high"), {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", Reasoning(effort="xhigh"), {"thinkingBudget": 32768}),
        ("gemini-2.5-flash", Reasoning(budget=31999), {"thinkingBudget": 24576}),
        ("gemini-2.5-flash-lite", Reasoning(budget=100), {"thinkingBudget": 512}),
        ("gemini-2.5-flash", Reasoning(budget=-1), {"thinkingBudget": -1}),
        ("gemini-2.5-flash", Reasoning(visible=True), {"includeThoughts": True}),
        ("models/gemini-3-pro-preview", Reasoning(effort="minimal"), {"thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", Reasoning(effort="medium"), {"thinkingLevel": "HIGH"}),
        ("gemini-3.1-pro-preview", Reasoning(effort="medium"), {"thinkingLevel": "MEDIUM"}),
        ("gemini-3-flash-preview", Reasoning(effort="none"), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash-preview", Reasoning(budget=10000), {"thinkingLevel": "MEDIUM"}),
        ("gemini-3-flash-preview", Reasoning(budget=-1), None),
        ("gemini-flash-latest", Reasoning(effort="low"), {"thinkingBudget": 1024}),
    ],
)
def test_reasoning_is_told_as_the_model_takes_it(
    model: str, reasoning: Reasoning, config: dict[str, Any] | None
) -> None:
    body = render(ask(model=model, reasoning=reasoning))
    assert body.get("generationConfig", {}).get("thinkingConfig") == config


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-1.5-pro", "gemma-3-4b-it"])
def test_models_that_do_not_think_are_not_told_how_much(model: str) -> None:
    said = ask(model=model, reasoning=Reasoning(effort="high"))
    assert GENERATE.render_request(said) == Rendered(
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}, ("reasoning_effort",)
    )


@settings(max_examples=80, deadline=None)
@given(
    conversations(
        names=False,
        late_systems=False,
        media_urls=False,
        media_files=False,
        media_details=False,
        media_names=False,
        assistant_media=True,
        refusals=False,
        signatures=False,
        redacted=False,
        result_names=True,
        result_media=False,
        several_results_texts=False,
        empty_results=False,
        mixed_results=False,
        cache=False,
        strict=False,
        parallel_tool_calls=False,
        budgets=(),
        efforts=(),
        stream=False,
        settings=("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "n", "logprobs"),
    )
)
def test_what_gemini_can_say_comes_back(said: Conversation) -> None:
    body = GENERATE.render_request(said).body
    judged(body)
    again = GENERATE.parse_request(body, model=said.model, stream=said.stream)
    output = replace(said.output, name="") if said.output else None
    wanted = normal(replace(said, output=output, wants_usage=True))
    assert normal(again) == wanted


@settings(max_examples=40, deadline=None)
@given(conversations(media_files=False, result_names=True))
def test_whatever_is_said_is_a_request_to_googles_library(said: Conversation) -> None:
    for model in ("gemini-2.5-flash", "gemini-3-pro-preview"):
        judged(GENERATE.render_request(replace(said, model=model)).body)
