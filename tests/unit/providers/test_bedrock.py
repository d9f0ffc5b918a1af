"""Where Bedrock's operations live. botocore says what its own client would call."""

from __future__ import annotations

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import bedrock, openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Endpoint, Native
from kong_ai_proxy.providers.bedrock import BEDROCK
from kong_ai_proxy.providers.bedrock.paths import host, model_path
from tests.unit.formats.bedrock import oracle

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
V2 = "amazon.titan-embed-text-v2:0"


def options(region: str | None = "eu-central-1", **more: object) -> ModelOptions:
    return ModelOptions.model_validate({"bedrock": {"aws_region": region, **more}})


def call(route_type: str = openai.CHAT, model: str = CLAUDE, **more: object) -> Call:
    return Call(route_type, model, options(), **more)  # type: ignore[arg-type]


def endpoint(asked: Call) -> Endpoint:
    assert BEDROCK.endpoint is not None
    return BEDROCK.endpoint(asked)


def native(
    operation: str, path: str, model: str = "", asked: Call | None = None
) -> Endpoint | None:
    assert BEDROCK.native is not None
    return BEDROCK.native(Native("bedrock", operation, model, path), asked or call(model=""))


def placed(found: Endpoint | None) -> Endpoint:
    """Where it is; what happens to bodies, test_named_models.py knows."""
    assert found is not None
    return found._replace(change=None)


# --- hosts and paths ---


@pytest.mark.parametrize("service", ["bedrock-runtime", "bedrock-agent-runtime", "bedrock"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-2"])
def test_hosts_are_those_of_awss_own_client(service: str, region: str) -> None:
    assert host(service, options(region)) == f"{oracle.endpoint_url(service, region)}:443"


def test_the_regions_of_china_and_of_the_european_cloud_have_hosts_of_their_own() -> None:
    assert host("bedrock-runtime", options("cn-north-1")).endswith("north-1.amazonaws.com.cn:443")
    assert host("bedrock-runtime", options("eusc-de-east-1")).endswith("east-1.amazonaws.eu:443")


@pytest.mark.parametrize("region", [None, " ", "evil.com/", "us-east-1.evil.com", "us-east-1\n"])
def test_a_region_that_is_none_names_no_other_host(region: str | None) -> None:
    with pytest.raises(FormatError, match="aws_region"):
        BEDROCK.base(options(region))


@pytest.mark.parametrize("model", [CLAUDE, ARN, "meta.llama3-1-8b-instruct-v1:0", "a1b2"])
def test_a_model_is_one_segment_of_the_path_as_boto3_writes_it(model: str) -> None:
    request = oracle.serialized("Converse", modelId=model, messages=[])
    assert model_path(model, "converse") == request["url_path"]


@pytest.mark.parametrize(
    "model",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        "a/..",
        "%2e%2e",
        "a b",
        "a\n",
        "a\\..\\b",
        "-" * 3000,
    ],
)
def test_a_model_that_is_no_id_is_refused(model: str) -> None:
    with pytest.raises(FormatError, match="model: expected the id or ARN"):
        model_path(model, "converse")


def test_the_service_that_is_signed_for_is_bedrock_everywhere() -> None:
    services = ("bedrock-runtime", "bedrock-agent-runtime", "bedrock")
    assert {oracle.signing_name(service) for service in services} == {"bedrock"}


# --- OpenAI's route types, and other clients' conversations ---


@pytest.mark.parametrize("route_type", [openai.CHAT, openai.COMPLETIONS])
@pytest.mark.parametrize("client", ["openai", "gemini", "bedrock"])
def test_conversations_go_through_converse(route_type: str, client: str) -> None:
    found = endpoint(call(route_type, client=client))
    assert found.path == "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    assert found.codec is bedrock.CONVERSE
    assert endpoint(call(route_type, stream=True)).path.endswith("/converse-stream")


@pytest.mark.parametrize(
    ("stream", "operation"), [(False, "invoke"), (True, "invoke-with-response-stream")]
)
def test_anthropics_clients_reach_claude_in_its_own_format(stream: bool, operation: str) -> None:
    asked = call(client="anthropic", stream=stream)
    found = endpoint(asked)
    assert found.path.endswith(f"v1%3A0/{operation}")
    assert found.codec is bedrock.ANTHROPIC
    assert found.change is not None
    body = {"model": "claude", "stream": True, "messages": []}
    assert found.change(body, asked) == {
        "model": REMOVED,
        "stream": REMOVED,
        "anthropic_version": "bedrock-2023-05-31",
    }


@pytest.mark.parametrize("model", [ARN, "amazon.nova-pro-v1:0"])
def test_anthropics_clients_reach_other_models_through_converse(model: str) -> None:
    assert endpoint(call(model=model, client="anthropic")).codec is bedrock.CONVERSE


def test_an_arn_that_names_claude_is_a_claude() -> None:
    model = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}"
    assert endpoint(call(model=model, client="anthropic")).codec is bedrock.ANTHROPIC


@pytest.mark.parametrize(
    ("model", "codec"),
    [
        (V2, bedrock.TITAN_EMBED),
        ("amazon.titan-embed-image-v1", bedrock.TITAN_EMBED),
        ("amazon.nova-2-multimodal-embeddings-v1:0", bedrock.NOVA_EMBED),
        ("cohere.embed-english-v3", bedrock.COHERE_EMBED),
        ("eu.cohere.embed-v4:0", bedrock.COHERE_EMBED),
    ],
)
def test_embeddings_go_through_invoke(model: str, codec: object) -> None:
    found = endpoint(call(openai.EMBEDDINGS, model))
    assert found.path.endswith("/invoke")
    assert found.codec is codec


def test_what_the_configuration_says_of_embeddings() -> None:
    asked = call(openai.EMBEDDINGS, V2)._replace(options=options(embeddings_normalize=True))
    change = endpoint(asked).change
    assert change is not None
    assert change({"inputText": "a"}, asked) == {"normalize": True}
    assert change({"inputText": "a", "normalize": False}, asked) == {}
    asked = call(openai.EMBEDDINGS, "cohere.embed-english-v3")
    change = endpoint(asked).change
    assert change is not None
    assert change({"texts": []}, asked) == {"input_type": "classification"}
    assert change({"texts": [], "input_type": "clustering"}, asked) == {}


def test_the_configured_latency_is_in_every_request() -> None:
    fast = options(performance_config_latency="optimized")
    asked = call()._replace(options=fast)
    change = endpoint(asked).change
    assert change is not None
    assert change({}, asked) == {"performanceConfig": {"latency": "optimized"}}
    assert change({}, call()) == {}
    assert BEDROCK.headers(fast) == {"x-amzn-bedrock-performanceconfig-latency": "optimized"}
    assert BEDROCK.headers(options()) == {}


def test_newer_claudes_get_no_sampling_parameters() -> None:
    assert "temperature" in BEDROCK.refused_for(call(model="global.anthropic.claude-opus-4-7"))
    assert not BEDROCK.refused_for(call())


# --- Bedrock's own operations ---


@pytest.mark.parametrize(
    "operation",
    ["converse", "converse-stream", "invoke", "invoke-with-response-stream", "count-tokens"],
)
def test_operations_of_a_model(operation: str) -> None:
    found = native(operation, f"/model/x/{operation}", ARN)
    assert found is not None
    assert found.path == model_path(ARN, operation)
    assert (found.codec is bedrock.CONVERSE) == operation.startswith("converse")
    configured = native(operation, f"/model/x/{operation}", "alias", call(model=CLAUDE))
    assert configured is not None
    assert configured.path == model_path(CLAUDE, operation)


@pytest.mark.parametrize(
    "operation", ["rerank", "retrieveAndGenerate", "retrieveAndGenerateStream"]
)
@pytest.mark.parametrize("below", ["", "/model/cohere.rerank-v3-5:0"])
def test_operations_of_knowledge_bases(operation: str, below: str) -> None:
    expected = f"/{operation}"
    base = "https://bedrock-agent-runtime.eu-central-1.amazonaws.com:443"
    assert placed(native(operation, f"{below}/{operation}")) == Endpoint(expected, base_url=base)


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ("async-invoke", "/model/amazon.nova-reel-v1:0/async-invoke", "/async-invoke"),
        ("async-invoke", "/async-invoke", "/async-invoke"),
        ("async-invoke", "/async-invoke/arn%3Aaws%2Fx", "/async-invoke/arn%3Aaws%2Fx"),
        ("apply", "/guardrail/abc/version/1/apply", "/guardrail/abc/version/1/apply"),
    ],
)
def test_operations_without_a_model(operation: str, path: str, expected: str) -> None:
    assert placed(native(operation, path)) == Endpoint(expected)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/model-invocations", "/model-invocation-job"),
        ("/model-invocation", "/model-invocation-job"),
        ("/model-invocation-job", "/model-invocation-job"),
        ("/model-invocation-job/arn%3A1/stop", "/model-invocation-job/arn%3A1/stop"),
        ("/model-invocation-jobs", "/model-invocation-jobs"),
    ],
)
def test_batch_jobs_are_managed_elsewhere(path: str, expected: str) -> None:
    base = "https://bedrock.eu-central-1.amazonaws.com:443"
    operation = path.strip("/").partition("/")[0]
    assert placed(native(operation, path)) == Endpoint(expected, base_url=base)


def test_behind_an_upstream_url_no_region_is_needed() -> None:
    behind = ModelOptions.model_validate({"upstream_url": "https://vpce.example.com"})
    found = native("rerank", "/rerank", asked=Call(openai.CHAT, "", behind))
    assert placed(found) == Endpoint("/rerank")


@pytest.mark.parametrize("path", ["/guardrail/abc", "/foundation-models", "/"])
def test_other_operations_are_not_known(path: str) -> None:
    assert native(path.strip("/"), path) is None
