"""OpenAI's own types, and its client, take what fixtures say of Responses that are converted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden import fixture
from tests.golden.fixture import Golden
from tests.unit.formats.openai_responses import judge

Json = dict[str, Any]

GOLDEN = [
    golden
    for golden in fixture.fixtures()
    if golden.config["route_type"] == "llm/v1/responses" and not golden.name.startswith("xai/")
]
WHOLE = [golden for golden in GOLDEN if golden.client.get("json", {}).get("object") == "response"]
STREAMS = [golden for golden in GOLDEN if golden.is_stream]

MAKES = {"message": "content", "reasoning": "summary", "function_call": "arguments"}
"""What the pieces of each kind of item add up to."""


def _name(golden: Golden) -> str:
    return golden.name


def _said(item: Json) -> str:
    told = item[MAKES[item["type"]]]
    return told if isinstance(told, str) else "".join(part["text"] for part in told)


@pytest.mark.parametrize("golden", GOLDEN, ids=_name)
def test_a_request(golden: Golden) -> None:
    body = golden.request["body"]
    told = body["input"]
    if isinstance(told, str):
        told = [{"role": "user", "content": told}]
    judge.check_request({"model": golden.config["model"]["name"], **body, "input": told})


@pytest.mark.parametrize("golden", WHOLE, ids=_name)
def test_an_answer(golden: Golden) -> None:
    told = golden.client["json"]
    found = judge.check_answer(told)
    assert found.model_dump(include=set(told), exclude_unset=True, by_alias=True) == told


@pytest.mark.parametrize("golden", STREAMS, ids=_name)
def test_a_stream(golden: Golden) -> None:
    """All that the client puts together of the pieces is in the response at the end; it does so
    for one that is complete."""
    data = fixture.body_bytes(golden.client)
    last = judge.events(data)[-1]
    judge.check_answer(last["response"])
    if last["type"] != "response.completed":
        assert last["type"] in ("response.incomplete", "response.failed")
        return
    found = judge.accumulated(data)
    assert len(found) == len(last["response"]["output"])
    for each, item in zip(found, last["response"]["output"], strict=True):
        assert item.items() <= each["item"].items()
        assert "".join(each["parts"].values()) == _said(item)


def test_every_row_has_both() -> None:
    assert {golden.name.partition("/")[0] for golden in WHOLE} == {
        golden.name.partition("/")[0] for golden in STREAMS
    }
