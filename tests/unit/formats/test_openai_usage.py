"""OpenAI's usage objects, those of each kind of answer, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.openai.usage import estimate, prompt_estimate, usage
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage


def read(value: object, service_tier: object = None) -> Usage:
    found = usage(value, service_tier)
    assert found is not None
    return found


def test_chat() -> None:
    value = {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 4,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    assert read(value, "default") == Usage(
        prompt_tokens=19,
        completion_tokens=10,
        total_tokens=29,
        prompt_details={"cached_tokens": 5, "audio_tokens": 0},
        completion_details=value["completion_tokens_details"],  # type: ignore[arg-type]
        service_tier="default",
    )


def test_reasoning_that_is_counted_beside_the_completion_is_a_part_of_it() -> None:
    """The example of xAI's reference: https://docs.x.ai/docs/api-reference#chat-completions."""
    details = {"completion_tokens_details": {"reasoning_tokens": 94}}
    found = read({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135, **details})
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (32, 103, 135)
    assert found.completion_details == {"reasoning_tokens": 94}


def test_embeddings_have_no_completion() -> None:
    found = read({"prompt_tokens": 8, "total_tokens": 8})
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (8, 0, 8)


def test_responses() -> None:
    value = {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 7},
        "total_tokens": 123,
    }
    found = read(value)
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (36, 87, 123)
    assert found.prompt_details == {"cached_tokens": 3, "cache_write_tokens": 0}
    assert found.completion_details == {"reasoning_tokens": 7}
    assert found.cache_writes == {}


def test_cache_writes_by_their_lifetime() -> None:
    details = {
        "cache_write_tokens": 100,
        "cache_write_tokens_details": {"ttl_30m_tokens": 60, "ttl_12h_tokens": 30},
    }
    found = read({"input_tokens": 200, "output_tokens": 1, "input_tokens_details": details})
    assert found.cache_writes == {"30m": 60, "12h": 30, "": 10}


def test_images_with_their_details() -> None:
    """gpt-image tells what of the input was text and what images (Kong 3.15.0.4)."""
    value = {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens": 4160,
        "output_tokens_details": {"text_tokens": 160, "image_tokens": 4000},
        "total_tokens": 4210,
    }
    found = read(value)
    assert found.prompt_details == {"text_tokens": 10, "image_tokens": 40}
    assert found.completion_details == {"text_tokens": 160, "image_tokens": 4000}


@pytest.mark.parametrize("details", [None, {}, [], "none", 0])
def test_images_without_details(details: object) -> None:
    found = read({"input_tokens": 50, "output_tokens": 1, "output_tokens_details": details})
    assert found.completion_details == {}


def test_a_transcription_by_tokens() -> None:
    value = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
        "output_tokens": 101,
        "total_tokens": 115,
    }
    found = read(value)
    assert (found.prompt_tokens, found.completion_tokens) == (14, 101)
    assert found.prompt_details == {"text_tokens": 0, "audio_tokens": 14}


def test_a_transcription_by_duration_has_no_tokens() -> None:
    assert usage({"type": "duration", "seconds": 9}) is None


def test_realtime_with_the_kinds_of_cached_tokens() -> None:
    value = {
        "total_tokens": 253,
        "input_tokens": 132,
        "output_tokens": 121,
        "input_token_details": {
            "text_tokens": 119,
            "audio_tokens": 13,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }
    found = read(value)
    assert found.prompt_details == {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64}
    assert found.cached_details == {"text_tokens": 64, "audio_tokens": 0}
    assert found.completion_details == {"text_tokens": 30, "audio_tokens": 91}


@pytest.mark.parametrize("garbage", [-1, 1.5, "7", None, True, [7], {"n": 7}, MAX_COUNT + 1])
def test_what_is_no_count_does_not_count(garbage: object) -> None:
    value = {
        "prompt_tokens": garbage,
        "completion_tokens": 3,
        "total_tokens": garbage,
        "prompt_tokens_details": {"cached_tokens": garbage, "audio_tokens": 1},
    }
    found = read(value)
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (0, 3, 3)
    assert found.prompt_details == {"audio_tokens": 1}


@pytest.mark.parametrize("value", [None, {}, [], 7, True, "usage", {"prompt_tokens": "7"}])
def test_what_tells_nothing_is_no_usage(value: object) -> None:
    assert usage(value) is None


def test_the_names_that_a_provider_makes_up_are_limited() -> None:
    details = {**{f"kind_{n}": 1 for n in range(1000)}, "x" * 100_000: 1}
    found = read({"prompt_tokens": 1, "prompt_tokens_details": details})
    assert len(found.prompt_details) == 32
    assert max(map(len, found.prompt_details)) < 100


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_COUNTS = ("prompt_tokens", "output_tokens", "total_tokens", "type")
_DETAILED = ("prompt_tokens_details", "input_token_details", "output_tokens_details")
_NAMES = st.sampled_from(_COUNTS + _DETAILED)
_KINDS = ("cached_tokens", "cached_tokens_details", "ttl_5m_tokens")
_WRITES = ("cache_write_tokens", "cache_write_tokens_details")
_DETAILS = st.dictionaries(
    st.sampled_from(_KINDS + _WRITES),
    _JSON | st.dictionaries(st.sampled_from(["ttl_5m_tokens", "text_tokens"]), _JSON),
)


@given(st.dictionaries(_NAMES, _JSON | _DETAILS) | _JSON)
def test_nothing_raises_and_no_count_is_negative(value: object) -> None:
    found = usage(value, value)
    if found is not None:
        maps = (found.prompt_details, found.completion_details, found.cached_details)
        counts = [found.prompt_tokens, found.completion_tokens, found.total_tokens]
        counts += [count for each in (*maps, found.cache_writes) for count in each.values()]
        assert all(type(count) is int and count >= 0 for count in counts)


def test_an_estimate_is_a_token_for_each_four_characters_begun() -> None:
    assert estimate(25, 18) == Usage(
        prompt_tokens=18, completion_tokens=7, total_tokens=25, estimated=True
    )


def test_an_answer_without_characters_is_not_estimated() -> None:
    assert estimate(0, 18) is None


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "one two three four five"}]}, 9),
        ({"messages": [{"content": "one two"}, {"content": "three"}]}, 5),
        ({"messages": [{"content": [{"type": "text", "text": "one"}, {"image_url": {}}]}]}, 2),
        ({"prompt": "one two"}, 4),
        ({"prompt": ["one", "two", 3, [4]]}, 4),
        ({"messages": "one two", "prompt": None}, 0),
        ({"messages": [None, 7, {"content": [None, 7]}]}, 0),
    ],
)
def test_a_prompt_is_estimated_from_its_words(body: dict[str, object], tokens: int) -> None:
    assert prompt_estimate(body) == tokens


def test_sums_of_a_session() -> None:
    one = read({"input_tokens": 1, "output_tokens": 2, "input_token_details": {"text_tokens": 1}})
    other = read({"input_tokens": 3, "output_tokens": 4, "input_token_details": {"a": 3}})
    both = one + other
    assert (both.prompt_tokens, both.completion_tokens, both.total_tokens) == (4, 6, 10)
    assert both.prompt_details == {"text_tokens": 1, "a": 3}


def test_a_sum_stays_a_number_that_kong_can_hold() -> None:
    most = Usage(total_tokens=MAX_COUNT)
    assert (most + most).total_tokens == MAX_COUNT
