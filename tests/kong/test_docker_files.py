"""docker/, as far as it can be checked without Docker. CI builds and runs it."""

from __future__ import annotations

import importlib
import re
import shlex
from typing import Any

import httpx
import pytest
import yaml

from kong_ai_proxy.config import validate
from tests.gateways import ROOT, GatewayFactory
from tests.recorder import Recorder

DOCKER = ROOT / "docker"


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yml").read_text()))


def test_the_declarative_file_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([str(DOCKER / "kong.yml")]) == 0, capsys.readouterr()


async def test_the_declarative_file_is_served(gateway: GatewayFactory, provider: Recorder) -> None:
    """With the provider here, and what compose.yml puts in Kong's environment."""
    text = (DOCKER / "kong.yml").read_text().replace("http://provider:8080", provider.url())
    assert "AI_AUTHORIZATION" in compose()["services"]["kong"]["environment"]
    running = await gateway(text, env={"AI_AUTHORIZATION": "Bearer from-the-environment"})
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
        "completions": {"prompt": "hello"},
        "embeddings": {"input": "hello"},
    }
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as http:
        for path, body in bodies.items():
            answer = await http.post(f"/v1/{path}", json={"model": "m", **body})
            assert answer.status_code == 200, answer.text
            assert provider.last.target == f"/v1/{path}"
            assert provider.last.header("authorization") == "Bearer from-the-environment"


def test_the_stand_in_provider_that_compose_starts_exists() -> None:
    command = compose()["services"]["provider"]["command"]
    module, _, name = command[-1].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_everything_that_compose_and_the_dockerfile_take_is_there() -> None:
    kong = compose()["services"]["kong"]
    assert (DOCKER / kong["build"]["context"] / kong["build"]["dockerfile"]).is_file()
    assert [(DOCKER / volume.split(":")[0]).exists() for volume in kong["volumes"]] == [True]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        for source in shlex.split(line)[:-1]:
            assert (ROOT / source).exists(), source
            allowed = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
            assert f"!{source.split('/')[0]}" in allowed
