"""Clients of the other five formats: with their own provider, where every byte stays, and with
others."""

from __future__ import annotations

import pytest

from tests.golden import checks, fixture, judges

FOLDERS = [
    f"{llm_format}-client"
    for llm_format in ("anthropic", "bedrock", "cohere", "gemini", "huggingface")
]


@pytest.mark.parametrize("name", fixture.names(*FOLDERS))
def test_request_and_answer(name: str) -> None:
    golden = fixture.load(name)
    checks.request(golden)
    checks.answer(golden)


@pytest.mark.parametrize("name", fixture.names(*FOLDERS))
def test_the_vendors_models_take_the_request(name: str) -> None:
    golden = fixture.load(name)
    model = golden.config["model"]
    is_vertex = "gemini" in model.get("options", {})
    judges.check("vertex" if is_vertex else model["provider"], golden)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_format_has_its_own_provider_and_two_others(folder: str) -> None:
    own = folder.removesuffix("-client")
    found = [golden for golden in fixture.fixtures(folder) if golden.is_stream]
    assert len({golden.config["model"]["provider"] for golden in found} - {own}) >= 2
    same = [golden for golden in found if golden.config["model"]["provider"] == own]
    assert same
    for golden in same:
        assert golden.upstream["body"] == "unchanged"
        assert golden.client["body"] == "unchanged"
