"""Requests of and to Converse. botocore's service model judges what is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from kong_ai_proxy.formats.bedrock import CONVERSE
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from kong_ai_proxy.formats.errors import FormatError
from tests.unit.formats.bedrock import oracle
from tests.unit.formats.bedrock.support import CLAUDE, fixture, said
from tests.unit.formats.strategies import conversations, normal

SONG = Tool(name="top_song", parameters={"type": "object"})


def rendered(conversation: Conversation) -> dict[str, Any]:
    body = CONVERSE.render_request(conversation).body
    oracle.received("Converse", body)
    oracle.received("ConverseStream", body)
    return body


def dropped(conversation: Conversation) -> tuple[str, ...]:
    rendered(conversation)
    return CONVERSE.render_request(conversation).dropped


def content(conversation: Conversation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rendered(conversation)["messages"][0]["content"]
    return found


# --- what clients send ---


def test_every_block_of_a_request_is_parsed() -> None:
    found = CONVERSE.parse_request(fixture("request"), model=CLAUDE, stream=True)
    system, user, assistant, results = found.messages
    assert system.blocks == (
        Text("You answer questions about radio.", cache="1h"),
        Text("Nothing about politics."),
        Text("Be brief."),
    )
    assert user.blocks == (
        Text("What is the most popular song on WZPZ? The logo is here."),
        Media(kind="image", data="iVBORw0KGgo=", media_type="image/png", cache=""),
        Media(
            kind="file",
            url="s3://radio/charts.pdf",
            media_type="application/pdf",
            name="Charts [2024]",
        ),
        Media(
            kind="file",
            data="UGxheWVkIHR3aWNlIGEgZGF5Lg==",
            media_type="text/plain",
            name="notes",
        ),
        Media(kind="video", data="AAAA", media_type="video/3gpp"),
    )
    assert assistant.blocks == (
        Thinking("I have to ask the tool.", "c2lnbmVk"),
        Thinking("", redacted="Zm9vYmE="),
        Text("Let me look."),
        ToolCall("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "top_song", '{"sign":"WZPZ"}'),
        ToolCall("tooluse_2", "top_song", "{}", cache=""),
    )
    assert results.blocks == (
        ToolResult(
            "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q",
            (
                Text('{"song":"Elemental Hotel","artists":[]}'),
                Text("found"),
                Media(kind="image", data="/9j/4AAQSkY=", media_type="image/jpeg"),
            ),
            cache="",
        ),
        Text("There it is."),
        ToolResult("tooluse_2", (Text("no sign"),), is_error=True),
        Media(kind="image", data="UklGRg==", media_type="image/webp"),
    )


def test_tools_and_settings_of_a_request_are_parsed() -> None:
    found = CONVERSE.parse_request(fixture("request"), model=CLAUDE, stream=True)
    assert (found.model, found.stream, found.wants_usage) == (CLAUDE, True, True)
    (tool,) = found.tools
    assert (tool.name, tool.strict, tool.cache) == ("top_song", True, "")
    assert tool.parameters == {
        "type": "object",
        "properties": {"sign": {"type": "string"}},
        "required": [],
    }
    assert found.native_tools == ({"systemTool": {"name": "nova_grounding"}},)
    assert found.tool_choice == ToolChoice("tool", "top_song")
    assert found.reasoning == Reasoning(budget=2000)
    assert found.output == OutputFormat(schema={"type": "object", "required": []}, name="song")
    assert found.settings == {
        "max_tokens": 512,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "top_k": 200,
        "service_tier": "flex",
        "guardrailConfig": {
            "guardrailIdentifier": "abc",
            "guardrailVersion": "1",
            "trace": "enabled",
        },
        "performanceConfig": {"latency": "optimized"},
        "requestMetadata": {"team": "radio"},
        "additionalModelRequestFields": {"anthropic_beta": ["x"]},
    }


def test_what_boto3_sends_is_parsed() -> None:
    request = oracle.serialized(
        "Converse",
        modelId="arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3",
        messages=[
            {
                "role": "user",
                "content": [
                    {"text": "Hi"},
                    {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
                ],
            }
        ],
    )
    found = CONVERSE.parse_request(oracle.json_body(request))
    image = Media(kind="image", data="iVBORw==", media_type="image/png")
    assert found.messages == (Message("user", (Text("Hi"), image)),)


@pytest.mark.parametrize("after", ["cachePoint", "text", "image"])
def test_any_block_may_follow_the_result_of_a_tool(after: str) -> None:
    blocks = {
        "cachePoint": {"type": "default"},
        "text": "and?",
        "image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}},
    }
    result = {"toolResult": {"toolUseId": "t", "content": [{"json": {}}]}}
    body = {"messages": [{"role": "user", "content": [result, {after: blocks[after]}]}]}
    found = CONVERSE.parse_request(body, model=CLAUDE).messages[0].blocks
    assert isinstance(found[0], ToolResult)
    assert len(found) == (1 if after == "cachePoint" else 2)
    assert found[0].cache == ("" if after == "cachePoint" else None)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": {}}, "messages: expected an array"),
        ({"messages": [{"role": "tool", "content": []}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": 1}]}]}, "content[0].text"),
        ({"messages": [{"role": "user", "content": [{"newBlock": {}}]}]}, "'newBlock'"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"image": {}}]}]}, "image.source"),
        ({"system": [{"image": {}}]}, "system[0]"),
        ({"toolConfig": {"tools": [{"toolSpec": {}}]}}, "toolConfig.tools[0].toolSpec.name"),
        ({"inferenceConfig": {"stopSequences": "END"}}, "inferenceConfig.stopSequences"),
        (
            {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}}},
            "jsonSchema.schema",
        ),
    ],
)
def test_a_request_that_is_none_is_refused_with_its_place(
    body: dict[str, object], place: str
) -> None:
    with pytest.raises(FormatError) as refused:
        CONVERSE.parse_request(body)
    assert place in str(refused.value)


def test_null_counts_as_absent() -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "Hi", "image": None}]}]}
    nothing = dict.fromkeys(("system", "toolConfig", "inferenceConfig", "guardrailConfig"))
    found = CONVERSE.parse_request({**body, **nothing})
    assert found == Conversation(
        messages=(Message("user", (Text("Hi"),)),), wants_usage=True, settings={}
    )


# --- what Bedrock gets ---


def spoken(conversation: Conversation) -> Conversation:
    """Without blank texts, which Converse refuses, and the random ones are at times."""

    def text(block: Any) -> Any:
        if isinstance(block, Text):
            return replace(block, text=block.text.strip() or "words")
        if isinstance(block, ToolResult):
            return replace(block, content=tuple(map(text, block.content)))
        return block

    messages = (replace(m, blocks=tuple(map(text, m.blocks))) for m in conversation.messages)
    tools = (replace(tool, description=tool.description.strip()) for tool in conversation.tools)
    return replace(conversation, messages=tuple(messages), tools=tuple(tools))


@given(
    conversations(
        names=False,
        late_systems=False,
        media_kinds=("image", "video"),
        media_urls=False,
        media_files=False,
        media_details=False,
        refusals=False,
        unsigned=False,
        call_signatures=False,
        mixed_results=False,
        strict=False,
        tool_choices=("auto", "required", "tool"),
        parallel_tool_calls=False,
        outputs=("schema",),
        efforts=(),
        budgets=(),
        settings=("temperature", "top_p", "max_tokens", "stop"),
    )
)
def test_a_conversation_survives_there_and_back(conversation: Conversation) -> None:
    conversation = spoken(conversation)
    if not conversation.tools:
        # Calls bring the tools that Converse wants beside them.
        conversation = replace(conversation, tools=(SONG,), tool_choice=None)
    body = rendered(conversation)
    back = CONVERSE.parse_request(body, model=conversation.model, stream=conversation.stream)
    tools = tuple(
        replace(tool, parameters=tool.parameters or {"type": "object"})
        for tool in conversation.tools
    )
    expected = replace(normal(conversation), wants_usage=True, tools=tools)
    assert normal(back) == expected


def test_system_messages_stand_before_the_turns_in_their_order() -> None:
    messages = (
        Message("system", (Text("One", cache="1h"), Text(" "))),
        Message("user", (Text("Hi"),)),
        Message("system", (Text("Two", cache=""),)),
        Message("user", (Text("there"),)),
    )
    body = rendered(Conversation(messages=messages, model=CLAUDE))
    assert body["system"] == [
        {"text": "One"},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
        {"text": "Two"},
        {"cachePoint": {"type": "default"}},
    ]
    assert body["messages"] == [{"role": "user", "content": [{"text": "Hi"}, {"text": "there"}]}]


@pytest.mark.parametrize(
    "model",
    [
        "amazon.titan-text-express-v1",
        "cohere.command-text-v14",
        "cohere.command-light-text-v14",
        "mistral.mistral-7b-instruct-v0:2",
        "mistral.mixtral-8x7b-instruct-v0:1",
    ],
)
def test_a_model_without_system_prompts_refuses_them(model: str) -> None:
    messages = (Message("system", (Text("Be brief"),)), Message("user", (Text("Hi"),)))
    conversation = Conversation(messages=messages, model=model)
    with pytest.raises(FormatError, match=f"system prompts are unsupported for model '{model}"):
        CONVERSE.render_request(conversation)
    rendered(replace(conversation, messages=messages[1:]))


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (Media(kind="image", data="iVBORw0KGgo="), "png"),
        (Media(kind="image", data="/9j/4AAQSkY="), "jpeg"),
        (Media(kind="image", data="AAAA", media_type="image/jpg"), "jpeg"),
        (Media(kind="image", url="s3://bucket/picture.webp"), "webp"),
        (Media(kind="audio", data="AAAA", media_type="audio/mpeg"), "mp3"),
        (Media(kind="audio", data="AAAA", media_type="audio/mp3"), "mp3"),
        (Media(kind="audio", data="AAAA", media_type="audio/x-wav"), "wav"),
        (Media(kind="video", data="AAAA", media_type="video/quicktime"), "mov"),
        (Media(kind="file", data="AAAA", name="Figures.XLSX"), "xlsx"),
        (Media(kind="file", data="AAAA", media_type="text/markdown; charset=utf-8"), "md"),
    ],
)
def test_the_format_of_media_is_found(media: Media, block: str) -> None:
    ((name, value),) = content(said(media))[0].items()
    assert name == {"file": "document"}.get(media.kind, media.kind)
    assert value["format"] == block


def test_documents_have_names_that_bedrock_takes_and_each_its_own() -> None:
    documents = [Media(kind="file", data="AAAA", name=n) for n in ("a_b  (1).pdf", "a b (1).pdf")]
    more = [Media(kind="file", data="AAAA", media_type="application/pdf")] * 2
    names = [block["document"]["name"] for block in content(said(*documents, *more))]
    assert names == ["a b (1)", "a b (1) 2", "document", "document 2"]


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        (Media(kind="image", url="https://example.com/a.png"), "from S3 (s3://bucket/key)"),
        (Media(kind="image", file_id="file-1", media_type="image/png"), "no uploaded files"),
        (Media(kind="image", data="AAAA", media_type="image/tiff"), "png, jpeg, gif, webp; this"),
        (Media(kind="file", data="AAAA"), "of no known type"),
    ],
)
def test_media_that_bedrock_does_not_take_are_refused(media: Media, reason: str) -> None:
    with pytest.raises(FormatError) as refused:
        CONVERSE.render_request(said(Text("See"), media))
    assert str(refused.value).startswith("messages[0].content[1]: Bedrock")
    assert reason in str(refused.value)


def calling(*blocks: Any, model: str = CLAUDE, **more: Any) -> Conversation:
    """A call, and `blocks` in the answer to it."""
    messages = (
        Message("user", (Text("Hi"),)),
        Message("assistant", (Text("I look."), ToolCall("c1", "top_song", '{"a":[]}'))),
        Message("user", blocks or (ToolResult("c1", (Text("Hotel"),)),)),
    )
    return Conversation(messages=messages, model=model, **more)


def test_results_come_first_in_their_message_with_their_cache_points() -> None:
    result = ToolResult("c1", (Text("Hotel"), Text("\n")), is_error=True, cache="")
    found = rendered(calling(Text("Well?"), result, tools=(SONG,)))["messages"]
    assert found[1]["content"] == [
        {"text": "I look."},
        {"toolUse": {"toolUseId": "c1", "name": "top_song", "input": {"a": []}}},
    ]
    assert found[2]["content"] == [
        {"toolResult": {"toolUseId": "c1", "content": [{"text": "Hotel"}], "status": "error"}},
        {"cachePoint": {"type": "default"}},
        {"text": "Well?"},
    ]


def test_a_conversation_with_calls_has_tools_though_the_client_names_none() -> None:
    found = rendered(calling())["toolConfig"]
    spec = {"name": "top_song", "inputSchema": {"json": {"type": "object"}}}
    assert found == {"tools": [{"toolSpec": spec}]}


def test_no_choice_of_tools_leaves_them_out_or_drops_the_choice() -> None:
    choice = ToolChoice("none")
    assert "toolConfig" not in rendered(said(tools=(SONG,), tool_choice=choice))
    asked = calling(tools=(SONG,), tool_choice=choice)
    assert "toolChoice" not in rendered(asked)["toolConfig"]
    assert dropped(asked) == ("tool_choice",)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), {"auto": {}}),
        (ToolChoice("required"), {"any": {}}),
        (ToolChoice("tool", "top_song"), {"tool": {"name": "top_song"}}),
    ],
)
def test_choices_of_tools(choice: ToolChoice, expected: object) -> None:
    body = rendered(said(tools=(SONG,), tool_choice=choice))
    assert body["toolConfig"]["toolChoice"] == expected


def test_an_empty_description_is_left_out_and_an_empty_name_refused() -> None:
    (tool,) = rendered(said(tools=(Tool(name="a"),)))["toolConfig"]["tools"]
    assert tool == {"toolSpec": {"name": "a", "inputSchema": {"json": {"type": "object"}}}}
    with pytest.raises(FormatError, match=r"tools\[0\]\.name: expected 1 to 64 letters"):
        CONVERSE.render_request(said(tools=(Tool(name=""),)))


def test_tools_of_other_providers_are_refused_and_bedrocks_own_passed_on() -> None:
    own = {"systemTool": {"name": "nova_grounding"}}
    assert rendered(said(native_tools=(own,)))["toolConfig"] == {"tools": [own]}
    with pytest.raises(FormatError, match="no tool of the type 'web_search'"):
        CONVERSE.render_request(said(native_tools=({"type": "web_search"},)))


def test_an_id_that_bedrock_does_not_take_is_replaced_the_same_way_everywhere() -> None:
    long = "call/" + "x" * 100
    messages = (
        Message("user", (Text("Hi"),)),
        Message("assistant", (ToolCall(long, "a"),)),
        Message("user", (ToolResult(long),)),
    )
    found = rendered(Conversation(messages=messages, model=CLAUDE))["messages"]
    identity = found[1]["content"][0]["toolUse"]["toolUseId"]
    assert found[2]["content"][0]["toolResult"]["toolUseId"] == identity
    assert identity.startswith("call_xxx")
    assert len(identity) == 64


@pytest.mark.parametrize("arguments", ["[1]", "{", '"a"'])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    messages = (
        Message("user", (Text("Hi"),)),
        Message("assistant", (ToolCall("c", "a", arguments),)),
    )
    with pytest.raises(FormatError, match=r"messages\[1\]\.content\[0\]\.arguments"):
        CONVERSE.render_request(Conversation(messages=messages))


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (Message("system", (Text("Be brief"),)),),
        (Message("user", (Text(" \n"),)),),
        (Message("assistant", (Text("Hello"),)), Message("user", (Text("Hi"),))),
    ],
)
def test_a_conversation_that_does_not_begin_with_the_user_is_refused(
    messages: tuple[Message, ...],
) -> None:
    with pytest.raises(FormatError, match="messages: expected"):
        CONVERSE.render_request(Conversation(messages=messages))


def test_a_prompt_of_prompt_management_needs_no_messages() -> None:
    settings = {"promptVariables": {"name": {"text": "Ada"}}}
    assert rendered(Conversation(messages=(), settings=settings)) == settings


def test_thoughts_without_a_signature_are_left_out() -> None:
    messages = (
        Message("user", (Text("Hi"),)),
        Message("assistant", (Thinking("hm"), Refusal("No."))),
        Message("user", (Text("Why?"),)),
    )
    found = rendered(Conversation(messages=messages, model=CLAUDE))["messages"]
    assert found[1]["content"] == [{"text": "No."}]


# --- settings, by model ---


def test_settings_stand_where_bedrock_has_them_and_others_are_dropped_by_name() -> None:
    settings = {
        "max_tokens": 5,
        "temperature": 0.5,
        "stop": ["END"],
        "top_k": 3,
        "n": 1,
        "seed": 7,
        "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "DRAFT"},
        "performanceConfig": {"latency": "optimized"},
        "requestMetadata": {"a": "b"},
        "additionalModelRequestFields": {"anthropic_beta": []},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "service_tier": "flex",
    }
    conversation = said(settings=settings, parallel_tool_calls=False, output=OutputFormat())
    body = rendered(conversation)
    assert body["inferenceConfig"] == {
        "maxTokens": 5,
        "temperature": 0.5,
        "stopSequences": ["END"],
    }
    assert body["additionalModelRequestFields"] == {"top_k": 3, "anthropic_beta": []}
    assert body["serviceTier"] == {"type": "flex"}
    for name in ("guardrailConfig", "performanceConfig", "requestMetadata"):
        assert body[name] == settings[name]
    assert set(dropped(conversation)) == {"seed", "parallel_tool_calls", "response_format"}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", {"top_k": 9}),
        ("us.amazon.nova-pro-v1:0", {"inferenceConfig": {"topK": 9}}),
        ("mistral.mistral-large-2407-v1:0", {"top_k": 9}),
        ("cohere.command-r-v1:0", {"k": 9}),
        ("meta.llama3-1-8b-instruct-v1:0", None),
    ],
)
def test_top_k_has_the_models_own_name(model: str, fields: object) -> None:
    conversation = said(model=model, settings={"top_k": 9})
    assert rendered(conversation).get("additionalModelRequestFields") == fields
    assert dropped(conversation) == (() if fields else ("top_k",))


@pytest.mark.parametrize(
    ("model", "reasoning", "fields"),
    [
        (
            "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
            Reasoning(budget=2000),
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        (
            "global.anthropic.claude-opus-4-6-v1",
            Reasoning(effort="high"),
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            Reasoning(effort="low"),
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        ("openai.gpt-oss-120b-1:0", Reasoning(effort="low"), {"reasoning_effort": "low"}),
        ("us.amazon.nova-2-lite-v1:0", Reasoning(effort="none"), None),
    ],
)
def test_reasoning_is_asked_for_in_the_models_own_way(
    model: str, reasoning: Reasoning, fields: object
) -> None:
    conversation = said(model=model, reasoning=reasoning)
    assert rendered(conversation).get("additionalModelRequestFields") == fields
    assert dropped(conversation) == ()
    back = CONVERSE.parse_request(rendered(conversation)).reasoning
    assert back == (reasoning if fields else None)


def test_reasoning_is_dropped_where_the_model_has_none_or_cannot_go_on_with_it() -> None:
    asked = Reasoning(effort="high")
    llama = said(model="meta.llama3-1-8b-instruct-v1:0", reasoning=asked)
    assert dropped(llama) == ("reasoning_effort",)
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert dropped(calling(model=model, reasoning=asked)) == ("reasoning_effort",)


def test_settings_that_do_not_go_with_thinking_are_dropped() -> None:
    settings = {"temperature": 0.2, "top_p": 0.5, "top_k": 5}
    conversation = said(reasoning=Reasoning(budget=4000), settings=settings)
    body = rendered(conversation)
    assert "inferenceConfig" not in body
    assert "top_k" not in body["additionalModelRequestFields"]
    assert set(dropped(conversation)) == set(settings)


def test_newer_claudes_take_temperature_or_top_p() -> None:
    settings = {"temperature": 0.2, "top_p": 0.5}
    assert dropped(said(settings=settings)) == ("top_p",)
    older = said(model="anthropic.claude-3-haiku-20240307-v1:0", settings=settings)
    assert dropped(older) == ()


@pytest.mark.parametrize(
    ("model", "points"),
    [
        (CLAUDE, 2),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2", 2),
        ("amazon.nova-lite-v1:0", 1),
        ("meta.llama3-1-8b-instruct-v1:0", 0),
    ],
)
def test_cache_points_go_to_models_that_know_them(model: str, points: int) -> None:
    tool = Tool(name="a", cache="")
    body = rendered(said(Text("Hi", cache=""), model=model, tools=(tool,)))
    parts = [*body["messages"][0]["content"], *body["toolConfig"]["tools"]]
    assert sum("cachePoint" in part for part in parts) == points


def test_a_schema_for_the_answer_is_sent_as_text() -> None:
    output = OutputFormat(schema={"type": "object", "required": []}, name="song")
    assert rendered(said(output=output))["outputConfig"]["textFormat"] == {
        "type": "json_schema",
        "structure": {"jsonSchema": {"schema": '{"type":"object","required":[]}', "name": "song"}},
    }
