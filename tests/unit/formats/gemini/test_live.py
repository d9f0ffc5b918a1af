"""Messages of Gemini Live: what a setup may say, and what a turn has used."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.gemini.live import Setup

# source: https://ai.google.dev/api/live (BidiGenerateContentSetup)
SETUP: dict[str, Any] = {
    "model": "models/gemini-live-2.5-flash-preview",
    "generationConfig": {
        "responseModalities": ["AUDIO"],
        "temperature": 0.7,
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    },
    "systemInstruction": {"parts": [{"text": "Be kind, 東京."}]},
    "tools": [{"functionDeclarations": [{"name": "get_weather"}]}, {"googleSearch": {}}],
    "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}},
    "sessionResumption": {"handle": "h"},
    "contextWindowCompression": {"slidingWindow": {"targetTokens": "8000"}},
    "inputAudioTranscription": {},
    "outputAudioTranscription": {},
}
REAL = "gemini-live-2.5-flash-preview"

# source: https://ai.google.dev/gemini-api/docs/live-api/capabilities (token count)
USED = {
    "usageMetadata": {
        "promptTokenCount": 181,
        "cachedContentTokenCount": 8,
        "responseTokenCount": 24,
        "toolUsePromptTokenCount": 5,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 213,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 31},
            {"modality": "AUDIO", "tokenCount": 150},
        ],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 24}],
    },
    "serverContent": {"turnComplete": True},
}


def resource(model: str) -> str:
    return f"models/{live.plain(model)}"


def through(setup: Any, **rule: Any) -> Any:
    message = orjson.dumps({"setup": setup})
    return orjson.loads(Setup(resource, **rule).feed(message))["setup"]


def test_everything_but_the_model_stays() -> None:
    found = through({**SETUP, "model": "fast"}, name=REAL, alias="fast")
    assert found == SETUP
    found.pop("realtimeInputConfig")  # Google's client sends it, and its type lacks it
    types.LiveClientMessage.model_validate({"setup": found})


def test_a_missing_model_is_filled_in() -> None:
    without = {name: value for name, value in SETUP.items() if name != "model"}
    assert through(without, name=REAL) == SETUP
    assert through({**SETUP, "model": None}, name=REAL) == SETUP


def test_a_setup_without_a_model_is_left_to_the_provider_where_none_is_configured() -> None:
    assert through({"generationConfig": {}}) == {"generationConfig": {}}


def test_the_sessions_model_is_known_from_then_on() -> None:
    setup = Setup(resource)
    assert setup.model is None
    setup.feed('{"setup":{"model":"models/gemini-x"}}')
    assert setup.model == "gemini-x"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("x", "x"),
        ("models/x", "x"),
        ("google/x", "x"),
        ("publishers/google/models/x", "x"),
        ("projects/p/locations/l/publishers/google/models/x", "x"),
        ("publishers/other/models/x", "publishers/other/models/x"),
        ("tunedModels/x", "tunedModels/x"),
        ("projects/p/locations/l/endpoints/7", "endpoints/7"),
        ("models/models/x", "models/x"),
    ],
)
def test_the_plain_name_of_a_model(model: str, name: str) -> None:
    assert live.plain(model) == name


def test_the_same_name_in_another_collection_is_another_model() -> None:
    for other in ("tunedModels/x", "publishers/other/models/x", "models/models/x", "X", "x "):
        with pytest.raises(FormatError, match="cannot use own model - must be: x"):
            through({"model": other}, name="x")


def test_what_has_no_setup_is_the_same_object() -> None:
    for message in ('{"realtimeInput":{"text":"the \\"setup\\""}}', b'{"clientContent":{}}'):
        assert Setup(resource, "x").feed(message) is message


@pytest.mark.parametrize(
    "name", ["Setup", "SETUP", " setup", "setup ", "setup\t", "setup\0", "\u017fetup"]
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_another_spelling_of_setup_does_not_pass(name: str, as_bytes: bool) -> None:
    """Some server might take it for the one that was checked."""
    text = orjson.dumps({name: {"model": "models/other"}}).decode()
    with pytest.raises(FormatError, match="unknown member"):
        Setup(resource, "x").feed(text.encode() if as_bytes else text)


_NAMES = st.sampled_from(["setup", "clientContent", "model", "text", "a"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.sampled_from(["x", "models/x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=3), st.booleans(), st.data())
def test_no_setup_with_another_model_ever_passes(
    message: dict[str, Any], as_bytes: bool, data: st.DataObject
) -> None:
    text = orjson.dumps(message).decode()
    escaped = data.draw(st.sampled_from(["", "s", "setup", "model"]))
    for letter in escaped:  # JSON may write any letter of a name so
        text = text.replace(f'"{letter}', f'"\\u{ord(letter):04x}', 1)
        text = text.replace(f"e{letter}", f"e\\u{ord(letter):04x}", 1) if letter == "t" else text
    try:
        passed = Setup(resource, "x").feed(text.encode() if as_bytes else text)
    except FormatError:
        return
    found = orjson.loads(passed)
    if "setup" in found:
        assert found["setup"]["model"] == "models/x"


@pytest.mark.parametrize("named", ["response", "candidates"])
def test_what_a_turn_has_used(named: str) -> None:
    told = orjson.loads(orjson.dumps(USED).replace(b'"response', b'"' + named.encode()))
    usage = live.usage(told)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (186, 27, 213)
    assert usage.prompt_details == {"text_tokens": 31, "audio_tokens": 150, "cached_tokens": 8}
    assert usage.completion_details == {"audio_tokens": 24, "reasoning_tokens": 3}


@pytest.mark.parametrize("told", [None, 7, [], "x"])
def test_a_message_without_usage(told: object) -> None:
    assert live.usage({}) is None
    assert live.usage({"usageMetadata": told}) is None


def test_usage_of_odd_values_counts_nothing() -> None:
    usage = live.usage({"usageMetadata": {"promptTokenCount": "7", "responseTokenCount": -1}})
    assert usage is not None
    assert usage.total_tokens == 0
