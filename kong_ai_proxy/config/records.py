"""The records that both plugins share: credentials, logging, a model and its options.

Fields, defaults and ranges are those of the Kong 3.15 plugin schemas.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from kong_ai_proxy.config.fields import (
    Array,
    Integer,
    Number,
    Record,
    Templated,
    TemplatedUrl,
    Text,
    secret,
    setting,
)
from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.config.rules import AllNeed, AllOrNone, MustNotBe, Needs, NotBoth, OneOf, Rule

Provider = Literal[
    "anthropic",
    "azure",
    "bedrock",
    "cerebras",
    "cohere",
    "dashscope",
    "databricks",
    "deepseek",
    "gemini",
    "huggingface",
    "llama2",
    "mistral",
    "ollama",
    "openai",
    "vllm",
    "xai",
]

RouteType = Literal[
    "audio/v1/audio/speech",
    "audio/v1/audio/transcriptions",
    "audio/v1/audio/translations",
    "image/v1/images/edits",
    "image/v1/images/generations",
    "llm/v1/assistants",
    "llm/v1/batches",
    "llm/v1/chat",
    "llm/v1/completions",
    "llm/v1/embeddings",
    "llm/v1/files",
    "llm/v1/responses",
    "preserve",
    "realtime/v1/realtime",
    "video/v1/videos/generations",
]

LlmFormat = Literal["anthropic", "bedrock", "cohere", "gemini", "huggingface", "openai"]


class Auth(Record):
    """What the provider is shown as credentials."""

    allow_override: bool = setting(
        "Let a credential that the client sends win over the one configured here.", default=False
    )
    aws_access_key_id: Text | None = secret("Access key of an AWS user, for Bedrock.")
    aws_secret_access_key: Text | None = secret("Secret key of that AWS user.")
    azure_client_id: Text | None = setting(
        "Client id of the Azure identity, when it is not the machine's only one.",
        default=None,
        referenceable=True,
    )
    azure_client_secret: Text | None = secret("Client secret of an Azure app registration.")
    azure_tenant_id: Text | None = setting(
        "Azure tenant of that app registration.", default=None, referenceable=True
    )
    azure_use_managed_identity: bool = setting(
        "Get tokens for Azure from a managed identity or app registration.", default=False
    )
    gcp_metadata_url: Text | None = setting(
        "Where to find Google's metadata server instead of its usual address.",
        default=None,
        referenceable=True,
    )
    gcp_oauth_token_url: Text | None = setting(
        "Where to get Google tokens instead of the usual address.",
        default=None,
        referenceable=True,
    )
    gcp_service_account_json: Text | None = secret(
        "Key file of a Google service account, its whole JSON text."
    )
    gcp_use_service_account: bool = setting(
        "Get tokens for Google from a service account.", default=False
    )
    header_name: Text | None = setting(
        "Header that carries the credential, such as Authorization or x-api-key.",
        default=None,
        referenceable=True,
    )
    header_value: Text | None = secret("Whole value of that header, such as Bearer and the key.")
    param_location: Literal["body", "query"] | None = setting(
        "Whether the parameter goes into the query string or the JSON body.", default=None
    )
    param_name: Text | None = setting(
        "Parameter that carries the credential.", default=None, referenceable=True
    )
    param_value: Text | None = secret("Value of that parameter.")


class Logging(Record):
    """What is added to Kong's log entries."""

    log_payloads: bool = setting("Log the bodies of requests and answers.", default=False)
    log_statistics: bool = setting("Log tokens, cost and latency of each request.", default=False)


class CacheWriteCost(Record):
    """Price of cache writes of one lifetime."""

    cost: Number = setting("Price of a million tokens written to the cache.")
    ttl: Text = setting("Lifetime the price is for, such as 5m or 1h.")


class ContextWindowFactor(Record):
    """How a long prompt raises the price."""

    above: Text = setting("Number of prompt tokens above which the factors apply.")
    input_factor: Number = setting("Factor on the price of prompt tokens.")
    output_factor: Number = setting("Factor on the price of completion tokens.")


class ServiceTierFactor(Record):
    """How the provider's service tier changes the price."""

    factor: Number = setting("Factor on the price of the whole request.")
    tier: Text = setting("Part of the tier's name as the provider reports it.", len_min=1)


class Bedrock(Record):
    """Where and as whom AWS Bedrock is called."""

    aws_assume_role_arn: Templated | None = setting("AWS role to assume.", default=None)
    aws_region: Templated | None = setting(
        "AWS region, before the variable AWS_REGION.", default=None
    )
    aws_role_session_name: Templated | None = setting(
        "Name of the session when a role is assumed.", default=None
    )
    aws_sts_endpoint_url: Templated | None = setting(
        "Address of AWS STS instead of the region's own.", default=None
    )
    batch_bucket_prefix: Templated | None = setting(
        "Prefix in the S3 bucket for what batches read and write.", default=None
    )
    batch_role_arn: Templated | None = setting("AWS role that batch jobs run as.", default=None)
    embeddings_normalize: bool = setting("Ask for embeddings of length one.", default=False)
    performance_config_latency: Templated | None = setting(
        "Value of performanceConfig.latency in every request.", default=None
    )
    video_output_s3_uri: Templated | None = setting(
        "Place in S3 where videos are written.", default=None
    )


class Cohere(Record):
    """What Cohere alone understands."""

    embedding_input_type: Literal[
        "classification", "clustering", "image", "search_document", "search_query"
    ] = setting("What the embeddings are for.", default="classification")
    wait_for_model: bool | None = setting("Wait until the model is loaded.", default=None)


class Dashscope(Record):
    """What Alibaba's Dashscope alone understands."""

    international: bool = setting(
        "Use the international site instead of the Chinese one.", default=True
    )


class Databricks(Record):
    """Where Databricks is called."""

    workspace_instance_id: Templated | None = setting(
        "Id of the workspace, the first part of its host name.", default=None
    )


class Gemini(Record):
    """Where Vertex AI is called; left out, the public Gemini API is."""

    rules: ClassVar[tuple[Rule, ...]] = (AllOrNone(("api_endpoint", "project_id", "location_id")),)

    api_endpoint: Templated | None = setting(
        "Host of the regional Vertex endpoint, without a scheme.", default=None
    )
    endpoint_id: Templated | None = setting(
        "Id of an endpoint deployed from the Model Garden.", default=None
    )
    location_id: Templated | None = setting("Google Cloud location.", default=None)
    project_id: Templated | None = setting("Google Cloud project.", default=None)


class Huggingface(Record):
    """What Hugging Face alone understands."""

    use_cache: bool | None = setting("Let Hugging Face answer from its cache.", default=None)
    wait_for_model: bool | None = setting("Wait until the model is loaded.", default=None)


class ModelOptions(Record):
    """Settings of one model. Every text may hold placeholders such as `$(headers.x)`."""

    anthropic_version: Templated | None = setting(
        "Version of Anthropic's API, for the header anthropic-version.", default=None
    )
    azure_api_version: Templated = setting(
        "Version of Azure's API, for the query parameter api-version.", default="2023-05-15"
    )
    azure_deployment_id: Templated | None = setting("Azure deployment.", default=None)
    azure_instance: Templated | None = setting(
        "Name of the Azure resource, the first part of its host name.", default=None
    )
    bedrock: Bedrock = setting("Settings for AWS Bedrock.", default=Bedrock)
    cache_read_cost: Number | None = setting(
        "Price of a million prompt tokens read from the provider's cache.", default=None
    )
    cache_write_cost: Number | None = setting(
        "Price of a million prompt tokens written to the provider's cache.", default=None
    )
    cache_write_cost_list: Array[CacheWriteCost] = setting(
        "Prices of cache writes by lifetime, before cache_write_cost.", default=()
    )
    cohere: Cohere = setting("Settings for Cohere.", default=Cohere)
    context_window_factor: Array[ContextWindowFactor] = setting(
        "How prices rise with the length of the prompt.", default=()
    )
    dashscope: Dashscope = setting("Settings for Dashscope.", default=Dashscope)
    databricks: Databricks = setting("Settings for Databricks.", default=Databricks)
    embeddings_dimensions: Integer | None = setting("Length of the embeddings.", default=None)
    gemini: Gemini = setting("Settings for Gemini on Vertex AI.", default=Gemini)
    huggingface: Huggingface = setting("Settings for Hugging Face.", default=Huggingface)
    input_cost: Number | None = setting("Price of a million prompt tokens.", default=None, gt=0)
    llama2_format: Literal["ollama", "openai", "raw"] | None = setting(
        "Format that the llama2 server speaks.", default=None
    )
    max_tokens: Integer | None = setting(
        "Most tokens to generate, unless the request says otherwise.", default=None
    )
    mistral_format: Literal["ollama", "openai"] | None = setting(
        "Format that the mistral server speaks.", default=None
    )
    output_cost: Number | None = setting(
        "Price of a million completion tokens.", default=None, gt=0
    )
    service_tier_factor: Array[ServiceTierFactor] = setting(
        "How prices change with the service tier.", default=()
    )
    temperature: Number | None = setting(
        "Sampling temperature, unless the request says otherwise.", default=None, between=(0, 5)
    )
    top_k: Integer | None = setting(
        "Sample from this many tokens, unless the request says otherwise.",
        default=None,
        between=(0, 500),
    )
    top_p: Number | None = setting(
        "Sample from this share of probability, unless the request says otherwise.",
        default=None,
        between=(0, 1),
    )
    upstream_path: Templated | None = setting(
        "Path to call instead of the provider's own; prefer upstream_url.", default=None
    )
    upstream_url: TemplatedUrl | None = setting(
        "Whole address to call instead of the provider's own.", default=None
    )


class Model(Record):
    """Which model is called, of which provider."""

    model_alias: Text | None = setting("Name under which clients ask for this model.", default=None)
    name: Templated | None = setting(
        "Name the provider knows the model by; left out, the client must say it.", default=None
    )
    options: ModelOptions = setting("Settings of the model.", default=ModelOptions)
    provider: Provider = setting("Whose API is called.")


def _provider_needs(provider: str, option: str, *instead: str) -> Needs:
    fields = tuple(f"model.options.{name}" for name in (option, *instead))
    return Needs(
        "model.provider", provider, fields, f"must set '{fields[0]}' for {provider} provider"
    )


def _self_hosted(provider: str) -> Needs:
    field = "model.options.upstream_url"
    message = f"must set '{field}' for self-hosted providers/models"
    return Needs("model.provider", provider, (field,), message)


def _supports(provider: str, route_types: tuple[str, ...]) -> OneOf:
    listed = ", ".join(route_types)
    message = f"provider {provider} does not support this route_type, only {listed} and preserve"
    return OneOf("model.provider", provider, "route_type", (*route_types, "preserve"), message)


class ModelTarget(Record):
    """What one model is asked, and how: the fields that both plugins have."""

    rules: ClassVar[tuple[Rule, ...]] = (
        MustNotBe(
            "model.provider",
            ("bedrock", "gemini"),
            "auth.allow_override",
            True,
            "bedrock and gemini only support auth.allow_override = false",
        ),
        AllOrNone(("auth.header_name", "auth.header_value")),
        AllOrNone(("auth.param_name", "auth.param_value", "auth.param_location")),
        _provider_needs("llama2", "llama2_format"),
        _provider_needs("mistral", "mistral_format"),
        _provider_needs("anthropic", "anthropic_version"),
        _provider_needs("azure", "azure_instance", "upstream_url"),
        _provider_needs("azure", "azure_deployment_id"),
        *(_supports(provider, route_types) for provider, route_types in SUPPORTED.items()),
        AllNeed(
            (("model.provider", "gemini"), ("route_type", "llm/v1/completions")),
            "model.options.gemini.project_id",
            "route_type",
            "the public Gemini API does not support llm/v1/completions, only Vertex AI does: set "
            "api_endpoint, project_id and location_id in model.options.gemini",
        ),
        NotBoth(
            (
                ("model.provider", "llama2"),
                ("model.options.llama2_format", "raw"),
                ("route_type", "llm/v1/embeddings"),
            ),
            "route_type",
            "llama2_format raw does not support llm/v1/embeddings",
        ),
        _self_hosted("llama2"),
        _self_hosted("vllm"),
    )

    auth: Auth = setting("Credentials for the provider.", default=Auth)
    logging: Logging = setting("What is logged.", default=Logging)
    model: Model = setting("The model that is called.")
    route_type: RouteType = setting("What clients may ask for on this Route.")
