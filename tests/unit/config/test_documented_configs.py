"""The configurations that Kong's documentation shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest
import yaml

from kong_ai_proxy import config
from kong_ai_proxy.auth.identity import AwsIdentity, BearerToken, Credential, Identity
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.exchange.messages import ClientRequest, Env
from kong_ai_proxy.exchange.plan import Plan
from tests.integration import examples
from tests.unit.config.samples import FIXTURES, fill_in, problems

DOCUMENTED: list[dict[str, Any]] = yaml.safe_load(
    (FIXTURES / "documented_configs.yaml").read_text(encoding="utf-8")
)
# "[1] config.@entity: must set model.options.x for y" and "config.model.z: unknown field"
MISTAKE = re.compile(r"(?:\[(\d+)\] )?(config[\w.\[\]@]*): (.*)")
EACH = [
    pytest.param(entry["plugin"], entry["check"], index, config, id=f"{entry['id']}[{index}]")
    for entry in DOCUMENTED
    for index, config in enumerate(entry["configs"])
]


def mistakes(check: str, index: int) -> list[tuple[str, str]]:
    """Field and text of what the documentation wrote wrongly in its configuration `index`."""
    found = (MISTAKE.fullmatch(text.strip()) for text in check.removeprefix("FAIL:").split(" ; "))
    return [(match[2], match[3]) for match in found if match and int(match[1] or index) == index]


def test_all_of_them_are_here() -> None:
    assert len(DOCUMENTED) == 108


@pytest.mark.parametrize(("plugin", "check", "index", "config"), EACH)
def test_it_is_accepted_or_refused_for_the_field_that_is_wrong(
    plugin: str, check: str, index: int, config: dict[str, Any]
) -> None:
    found = problems(plugin, fill_in(config))
    expected = mistakes(check, index)
    assert len(found) == len(expected)
    for field, text in expected:
        if field.endswith(".@entity"):
            missing = re.search(r"model\.options\.\w+", text)
            assert missing
            assert f"{field.removesuffix('.@entity')}.{missing[0]}" in found
        else:
            assert found[field].startswith("unknown field")


@pytest.mark.parametrize("entry", [e for e in DOCUMENTED if len(e["configs"]) > 1])
def test_a_list_of_configurations_is_not_one(entry: dict[str, Any]) -> None:
    found = problems(entry["plugin"], fill_in(entry["configs"]))
    assert found == {"config": "expected a record"}


# ---- where their requests go

UPSTREAMS: dict[str, str] = yaml.safe_load(
    (FIXTURES / "documented_upstreams.yaml").read_text(encoding="utf-8")
)
HI = [{"role": "user", "content": "hi"}]
# What a client of the format asks: path, query, body.
ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "anthropic": ("/v1/messages", "beta=true", {"max_tokens": 9, "messages": HI}),
    "bedrock": (
        "/model/meta.llama3-70b-instruct-v1%3A0/converse",
        "",
        {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    ),
    "cohere": ("/v1/rerank", "", {"query": "x", "documents": ["a"]}),
    "gemini": (
        "/v1beta/models/gemini-1.5-flash:generateContent",
        "",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    ),
    "huggingface": ("/generate", "", {"inputs": "hi"}),
}
IN_OPENAIS_FORMAT: dict[str, dict[str, Any]] = {
    "llm/v1/chat": {"messages": HI},
    "llm/v1/embeddings": {"input": "hi"},
}
# Where the name of a placeholder is no value that a reader would fill in.
VALUES = {
    "aws_region": "us-east-1",
    "gcp_location_id": "us-central1",
    "gcp_service_account_json": json.dumps(
        {"type": "service_account", "client_email": "kong@example.com", "private_key": "my-key"}
    ),
    "gemini_api_endpoint": "us-central1-aiplatform.googleapis.com",
    "vertex_api_endpoint": "us-central1-aiplatform.googleapis.com",
    "upstream_url": "http://vllm.example:8000/v1/chat/completions",
}


class Documented(NamedTuple):
    """One documented configuration that is valid, its placeholders filled in."""

    id: str
    plugin: str
    config: config.Config


def filled_in(value: Any) -> Any:
    """With values that also make hosts."""
    if isinstance(value, dict):
        return {key: filled_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"\$\{\{.*?\}\}", "my-key", value)  # decK's
    return re.sub(
        r"\$\{(\w+)\}",
        lambda found: VALUES.get(found[1], f"my-{found[1].replace('_', '-')}"),
        value,
    )


def text_configs() -> Iterator[Documented]:
    for entry in DOCUMENTED:
        for each in entry["configs"]:
            given = filled_in(each)
            if problems(entry["plugin"], given):
                continue
            parsed = config.parse(entry["plugin"], given)
            if parsed.targets[0].route_type in IN_OPENAIS_FORMAT:
                yield Documented(entry["id"], entry["plugin"], parsed)


TEXT = {each.id: each for each in reversed(list(text_configs()))}


def upstream(id_: str) -> str:
    return UPSTREAMS.get(id_) or UPSTREAMS[PurePosixPath(id_).stem]


def url(documented: Documented) -> str:
    """Where a request goes that the configuration is meant for."""
    parsed = documented.config
    target = parsed.targets[0]
    path, query, body = "/chat", "", IN_OPENAIS_FORMAT[target.route_type]
    if parsed.llm_format != "openai":
        path, query, body = ASKED[parsed.llm_format]
    named = target.model.model_alias or (None if target.model.name else "gpt-4o")
    raw = json.dumps({**body, "model": named} if named else body).encode()
    headers = {"content-type": ("application/json",), "content-length": (str(len(raw)),)}
    captures = {"azure_instance": "my-gpt", "model": "gpt-5"}
    client = ClientRequest("POST", path, query=query, headers=headers, captures=captures)
    plan = Plan(parsed)
    plan.check_available()
    plan.check_head(client)
    attempt = plan.attempt(client, raw, relayed=True)
    place = attempt.start(Env(id="x" * 24, credential=credential(attempt.identity))).address
    asked = f"?{place.query}" if place.query else ""
    return f"{place.scheme}://{place.host}:{place.port}{place.path}{asked}"


def credential(identity: Identity | None) -> Credential | None:
    if isinstance(identity, AwsIdentity):
        return AwsCredentials("AKID", "secret")
    return None if identity is None else BearerToken("token")


@pytest.mark.parametrize("id_", TEXT)
def test_a_request_goes_where_kongs_pages_say(id_: str) -> None:
    assert url(TEXT[id_]) == upstream(id_)


# ---- what examples/ has of them

EXAMPLES: dict[str, str] = yaml.safe_load(
    (FIXTURES / "documented_examples.yaml").read_text(encoding="utf-8")
)
ADVANCED = {
    PurePosixPath(entry["id"]).stem: entry["configs"][0]
    for entry in DOCUMENTED
    if entry["plugin"] == "ai-proxy-advanced"
}


def example(name: str) -> Any:
    """The plugin's configuration on the Route that has a documented use."""
    file, _, route = EXAMPLES[name].partition(" ")
    found = next(each for each in examples.routes(examples.deck(file)) if each["name"] == route)
    return next(each["config"] for each in found["plugins"] if each["name"].startswith("ai-proxy"))


def kind_of_use(given: Any) -> tuple[object, ...]:
    """What makes one use another than the next."""
    targets = given.get("targets", [given])
    return (
        given.get("llm_format", "openai"),
        {target["route_type"] for target in targets},
        given.get("balancer", {}).get("algorithm", "round-robin"),
        given.get("vectordb", {}).get("strategy"),
        given.get("balancer", {}).get("max_fails", 0) > 0,
        any("$(" in target["model"].get("name", "") for target in targets),
    )


def providers(given: Any) -> set[str]:
    return {target["model"]["provider"] for target in given.get("targets", [given])}


def test_each_use_of_the_advanced_plugin_has_an_example() -> None:
    assert set(EXAMPLES) == set(ADVANCED)


@pytest.mark.parametrize("name", ADVANCED)
def test_the_example_is_of_that_use(name: str) -> None:
    written = example(name)
    assert kind_of_use(written) == kind_of_use(ADVANCED[name])
    assert providers(written) >= providers(ADVANCED[name])
