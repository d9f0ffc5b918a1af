"""Mistral, with the types of its own client library as the judge of requests."""

from __future__ import annotations

import typing
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from mistralai.client.models.chatcompletionrequest import ChatCompletionRequest
from mistralai.client.models.embeddingrequest import EmbeddingRequest
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import ollama, openai
from kong_ai_proxy.formats.conversation import Conversation, ToolCall
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.providers.base import Call, Endpoint, Provider
from kong_ai_proxy.providers.mistral import MISTRAL
from tests.providers import mistral_api
from tests.unit.formats.strategies import conversations

# Not tuning knobs: what Mistral lacks of these it has to say itself.
_LEFT_TO_MISTRAL = {
    "audio",
    "function_call",
    "functions",
    "modalities",
    "moderation",
    "web_search_options",
}


def row(**options: Any) -> Provider:
    given = {"mistral_format": "openai", **options}
    return MISTRAL.find(ModelOptions.model_validate(given))


def endpoint(route_type: str = openai.CHAT) -> Endpoint:
    own = row()
    assert own.endpoint is not None
    return own.endpoint(Call(route_type, "mistral-tiny", ModelOptions()))


def changed(body: dict[str, Any], route_type: str = openai.CHAT) -> dict[str, Any]:
    change = endpoint(route_type).change
    assert change is not None
    both = {**body, **change(body, Call(route_type, "mistral-tiny", ModelOptions()))}
    return {name: value for name, value in both.items() if value is not REMOVED}


def messages(*given: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = changed({"messages": list(given)})["messages"]
    return found


def members(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


USER = {"role": "user", "content": "Hi"}


def test_its_own_endpoints() -> None:
    assert row().base(ModelOptions()) == "https://api.mistral.ai"
    assert endpoint().path == "/v1/chat/completions"
    assert endpoint().codec is openai_chat.CHAT
    assert endpoint(openai.EMBEDDINGS).path == "/v1/embeddings"
    assert endpoint(openai.EMBEDDINGS).codec is openai_embeddings.EMBEDDINGS
    assert row().route_types == {openai.CHAT, openai.EMBEDDINGS}


def test_without_a_format_it_is_openais() -> None:
    assert MISTRAL.find(ModelOptions()) is row()


def test_its_own_address_spelled_out_is_still_its_own() -> None:
    url = "https://api.mistral.ai/v1/chat/completions"
    call = Call(openai.CHAT, "mistral-tiny", ModelOptions(upstream_url=url))
    assert row(upstream_url=url) is row()
    assert "user" in row().refused_for(call)


@pytest.mark.parametrize("url", [None, "https://codestral.mistral.ai", "http://127.0.0.1:8000"])
def test_every_address_is_spoken_to_as_mistral(url: str | None) -> None:
    own = row(upstream_url=url)
    assert "logit_bias" in own.refused_for(Call(openai.CHAT, "m", ModelOptions(upstream_url=url)))
    assert not own.usage_on_request


def test_ollamas_format() -> None:
    own = row(mistral_format="ollama", upstream_url="http://ollama.local:11434")
    assert own.paths == {openai.CHAT: "/api/chat", openai.EMBEDDINGS: "/api/embed"}
    assert own.codecs == {openai.CHAT: ollama.CHAT, openai.EMBEDDINGS: ollama.EMBED}


def test_every_knob_of_openais_is_known_renamed_or_dropped() -> None:
    parameters = set(typing.get_type_hints(completion_create_params.CompletionCreateParamsBase))
    changes = changed(dict.fromkeys(parameters - {"messages"}, 1)).keys()
    left = changes - row().refused_for(Call(openai.CHAT, "m", ModelOptions())) - _LEFT_TO_MISTRAL
    assert left <= members(ChatCompletionRequest)


def test_every_knob_of_openais_embeddings_too() -> None:
    parameters = set(typing.get_type_hints(embedding_create_params.EmbeddingCreateParams))
    changes = changed(dict.fromkeys(parameters, 1), openai.EMBEDDINGS).keys()
    left = changes - row().refused_for(Call(openai.EMBEDDINGS, "m", ModelOptions()))
    assert left <= members(EmbeddingRequest)


def test_names_of_mistrals_own() -> None:
    body = changed({"messages": [USER], "seed": 7, "max_completion_tokens": 9, "temperature": 0})
    assert body == {"messages": [USER], "random_seed": 7, "max_tokens": 9, "temperature": 0}
    assert changed({"input": "a", "dimensions": 64}, openai.EMBEDDINGS) == {
        "input": "a",
        "output_dimension": 64,
    }


def test_what_was_said_in_mistrals_words_wins_and_null_is_nothing() -> None:
    body = changed({"seed": 7, "random_seed": 8, "max_completion_tokens": None})
    assert body == {"random_seed": 8}
    assert changed({"max_tokens": None, "max_completion_tokens": 64}) == {"max_tokens": 64}


def test_a_request_in_its_words_is_not_touched() -> None:
    change = endpoint().change
    assert change is not None
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": "", "tool_calls": [{"id": "abcDEF123"}]},
            {"role": "tool", "tool_call_id": "abcDEF123", "name": "f", "content": "1"},
        ]
    }
    assert change(body, Call(openai.CHAT, "m", ModelOptions())) == {}


def test_a_developers_message_is_the_systems() -> None:
    assert messages({"role": "developer", "content": "a"}, USER)[0] == {
        "role": "system",
        "content": "a",
    }


def test_members_that_messages_do_not_have_are_taken_out() -> None:
    said = {"role": "assistant", "content": "a", "name": "x", "refusal": None, "audio": None}
    found = messages({**USER, "name": "ann"}, {**said, "reasoning_content": "hm"}, USER)
    assert found == [USER, {"role": "assistant", "content": "a"}, USER]


def test_a_refusal_is_what_was_said() -> None:
    found = messages(USER, {"role": "assistant", "content": None, "refusal": "No."}, USER)
    assert found[1] == {"role": "assistant", "content": "No."}


def test_ids_of_other_providers_get_mistrals_form_and_still_match() -> None:
    calls = [{"id": name, "type": "function"} for name in ("call_1", "call_2", "abcDEF123")]
    found = messages(
        USER,
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "a"} for call in calls),
    )
    ids = [call["id"] for call in found[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in found[2:]] == ids
    assert all(len(name) == 9 and name.isalnum() for name in ids)
    assert len(set(ids)) == 3
    assert ids[2] == "abcDEF123"


@pytest.mark.parametrize("role", ["user", "system"])
def test_what_is_said_after_a_result_is_added_to_it(role: str) -> None:
    result = {"role": "tool", "tool_call_id": "abcDEF123", "content": "11 degrees"}
    said = {"role": role, "content": [{"type": "text", "text": "Celsius?"}]}
    assert messages(USER, result, said) == [
        USER,
        {
            **result,
            "content": [
                {"type": "text", "text": "11 degrees"},
                {"type": "text", "text": "Celsius?"},
            ],
        },
    ]


def test_images_after_a_result_are_left_to_mistral() -> None:
    result = {"role": "tool", "tool_call_id": "abcDEF123", "content": "11 degrees"}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": "data:"}]}
    assert messages(USER, result, image) == [USER, result, image]


def test_an_answer_that_has_begun_is_a_prefix() -> None:
    begun = {"role": "assistant", "content": "One,"}
    assert messages(USER, begun) == [USER, {**begun, "prefix": True}]


def test_messages_that_are_none_are_left_to_mistral() -> None:
    assert changed({"messages": [1, None]}) == {"messages": [1, None]}
    assert changed({"messages": "a"}) == {"messages": "a"}


def test_a_function_without_parameters_gets_an_empty_schema() -> None:
    bare = {"type": "function", "function": {"name": "f"}}
    whole = {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}}
    tools = changed({"tools": [bare, whole, {"type": "web_search"}]})["tools"]
    assert tools[0]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert tools[1:] == [whole, {"type": "web_search"}]


@settings(max_examples=50)
@given(
    conversations(media_kinds=(), result_media=False, empty_results=False, cache=False, budgets=())
)
def test_any_conversation_becomes_a_request_of_mistrals(conversation: Conversation) -> None:
    call = Call(openai.CHAT, conversation.model, ModelOptions())
    allowed = conversation.without(row().refused_for(call))
    body = orjson.loads(orjson.dumps(changed(openai_chat.CHAT.render_request(allowed).body)))
    validator = mistral_api._CHAT_STREAM if body.get("stream") else mistral_api._CHAT
    validator.check(body)
    if all(_has_content(message) for message in body["messages"]):
        mistral_api._check_turns(body["messages"])
    blocks = [block for message in conversation.messages for block in message.blocks]
    calls = [each for message in body["messages"] for each in message.get("tool_calls") or ()]
    assert len(calls) == sum(isinstance(block, ToolCall) for block in blocks)


def _has_content(message: dict[str, Any]) -> bool:
    """An assistant that only thought has nothing left to say, which Mistral refuses."""
    return bool(message.get("content") or message.get("tool_calls"))
