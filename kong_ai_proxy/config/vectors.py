"""The records that semantic balancing needs: an embedding model and a vector database.

Fields, defaults and ranges are those of the Kong 3.15 plugin schemas.
"""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Literal

from kong_ai_proxy.config.fields import (
    MILLISECONDS,
    PORT,
    Array,
    Integer,
    Number,
    OrReference,
    Record,
    Text,
    Url,
    secret,
    setting,
)
from kong_ai_proxy.config.records import Auth, Bedrock, Huggingface
from kong_ai_proxy.config.rules import AllOrNone, Excludes, Needs, NotTogether, Rule


class AzureEmbeddings(Record):
    """Where Azure's embeddings are."""

    api_version: Text = setting(
        "Version of Azure's API, for the query parameter api-version.", default="2023-05-15"
    )
    deployment_id: Text | None = setting("Azure deployment.", default=None)
    instance: Text | None = setting(
        "Name of the Azure resource, the first part of its host name.", default=None
    )


class GeminiEmbeddings(Record):
    """Where Vertex AI's embeddings are."""

    rules: ClassVar[tuple[Rule, ...]] = (AllOrNone(("api_endpoint", "project_id", "location_id")),)

    api_endpoint: Text | None = setting(
        "Host of the regional Vertex endpoint, without a scheme.", default=None
    )
    location_id: Text | None = setting("Google Cloud location.", default=None)
    project_id: Text | None = setting("Google Cloud project.", default=None)


class EmbeddingsOptions(Record):
    """Settings of the embedding model."""

    azure: AzureEmbeddings = setting("Settings for Azure.", default=AzureEmbeddings)
    bedrock: Bedrock = setting("Settings for AWS Bedrock.", default=Bedrock)
    gemini: GeminiEmbeddings = setting(
        "Settings for Gemini on Vertex AI.", default=GeminiEmbeddings
    )
    huggingface: Huggingface = setting("Settings for Hugging Face.", default=Huggingface)
    upstream_url: Url | None = setting(
        "Whole address to call instead of the provider's own.", default=None
    )


class EmbeddingsModel(Record):
    """Which embedding model is called, of which provider."""

    name: Text = setting("Name of the embedding model.")
    options: EmbeddingsOptions = setting("Settings of the model.", default=EmbeddingsOptions)
    provider: Literal[
        "azure", "bedrock", "gemini", "huggingface", "mistral", "ollama", "openai"
    ] = setting("Whose API is called.")


class Embeddings(Record):
    """The model that turns prompts and descriptions into vectors."""

    rules: ClassVar[tuple[Rule, ...]] = (
        AllOrNone(("auth.header_name", "auth.header_value")),
        AllOrNone(("auth.param_name", "auth.param_value", "auth.param_location")),
    )

    auth: Auth = setting("Credentials for the provider.", default=Auth)
    model: EmbeddingsModel = setting("The embedding model.")


class Pgvector(Record):
    """A PostgreSQL database with the extension pgvector."""

    database: Text = setting("Name of the database.", default="kong-pgvector")
    host: Text = setting("Host of the database.", default="127.0.0.1")
    password: Text | None = secret("Password of the user.")
    port: Integer = setting("Port of the database.", default=5432)
    ssl: bool = setting("Connect with TLS.", default=False)
    ssl_cert: Text | None = setting("File of the client certificate.", default=None)
    ssl_cert_key: Text | None = setting("File of that certificate's key.", default=None)
    ssl_required: bool = setting("Fail when the server has no TLS.", default=False)
    ssl_verify: bool = setting("Verify the server's certificate.", default=True)
    ssl_version: Literal["any", "tlsv1_2", "tlsv1_3"] = setting(
        "Version of TLS.", default="tlsv1_2"
    )
    timeout: Number = setting("Time for connecting and for each query, in ms.", default=5000.0)
    user: Text = setting("User of the database.", default="postgres", referenceable=True)


class CloudAuthentication(Record):
    """How a cloud's own identities log in to its Redis."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        Needs("auth_provider", "aws", (name,), f"must set '{name}' for auth_provider aws")
        for name in ("aws_cache_name", "aws_region")
    )

    auth_provider: OrReference[Literal["aws", "azure", "gcp"]] | None = setting(
        "Whose identities they are.", default=None, referenceable=True
    )
    aws_access_key_id: Text | None = secret("Access key of an AWS user.")
    aws_assume_role_arn: Text | None = secret("AWS role to assume.")
    aws_cache_name: Text | None = setting(
        "Name of the ElastiCache cluster.", default=None, referenceable=True
    )
    aws_is_serverless: bool = setting("Whether the cluster is serverless.", default=True)
    aws_region: Text | None = setting(
        "AWS region of the cluster.", default=None, referenceable=True
    )
    aws_role_session_name: Text | None = secret("Name of the session when a role is assumed.")
    aws_secret_access_key: Text | None = secret("Secret key of that AWS user.")
    azure_client_id: Text | None = secret("Client id of the Azure identity.")
    azure_client_secret: Text | None = secret("Client secret of that identity.")
    azure_tenant_id: Text | None = secret("Azure tenant of that identity.")
    gcp_service_account_json: Text | None = secret(
        "Key file of a Google service account, its whole JSON text."
    )


class ClusterNode(Record):
    """A node to learn a Redis cluster from."""

    ip: Text = setting("Address of the node.", default="127.0.0.1")
    port: Integer = setting("Port of the node.", default=6379, between=PORT)


class SentinelNode(Record):
    """A Redis Sentinel."""

    host: Text = setting("Host of the sentinel.", default="127.0.0.1")
    port: Integer = setting("Port of the sentinel.", default=6379, between=PORT)


_SENTINEL = ("sentinel_master", "sentinel_role", "sentinel_nodes")


class Redis(Record):
    """A Redis or Valkey server, cluster, or group of sentinels."""

    rules: ClassVar[tuple[Rule, ...]] = (
        AllOrNone(_SENTINEL),
        NotTogether(("cluster_nodes",), _SENTINEL),
        Excludes(
            "connection_is_proxied",
            True,
            "cluster_nodes",
            "connection_is_proxied can only be used with host and port",
        ),
        Excludes(
            "connection_is_proxied",
            True,
            "sentinel_nodes",
            "connection_is_proxied can only be used with host and port",
        ),
    )

    cloud_authentication: CloudAuthentication = setting(
        "Login with a cloud's own identities.", default=CloudAuthentication
    )
    cluster_max_redirections: Integer = setting(
        "How often a cluster may send a query on.", default=5
    )
    cluster_nodes: Array[ClusterNode] = setting(
        "Nodes to learn the cluster from.", default=(), len_min=1
    )
    connect_timeout: Integer = setting(
        "Time for connecting, in ms.", default=2000, between=MILLISECONDS
    )
    connection_is_proxied: bool = setting(
        "Whether a proxy such as Envoy stands before Redis.", default=False
    )
    database: Integer = setting("Number of the database.", default=0)
    host: Text = setting("Host of the server.", default="127.0.0.1", referenceable=True)
    keepalive_backlog: Integer | None = setting(
        "How many queries may wait for a connection.", default=None, between=MILLISECONDS
    )
    keepalive_pool_size: Integer = setting(
        "Most connections that are kept open.", default=256, between=(1, 2147483646)
    )
    password: Text | None = secret("Password of the user.")
    port: OrReference[Integer] = setting(
        "Port of the server.", default=6379, between=PORT, referenceable=True
    )
    read_timeout: Integer = setting(
        "Time for reading an answer, in ms.", default=2000, between=MILLISECONDS
    )
    send_timeout: Integer = setting(
        "Time for sending a query, in ms.", default=2000, between=MILLISECONDS
    )
    sentinel_master: Text | None = setting("Name of the sentinels' master.", default=None)
    sentinel_nodes: Array[SentinelNode] = setting("The sentinels to ask.", default=(), len_min=1)
    sentinel_password: Text | None = secret("Password for the sentinels.")
    sentinel_role: Literal["any", "master", "slave"] | None = setting(
        "Which server to ask the sentinels for.", default=None
    )
    sentinel_username: Text | None = setting(
        "User for the sentinels.", default=None, referenceable=True
    )
    server_name: Text | None = setting(
        "Name in the server's certificate.", default=None, referenceable=True
    )
    ssl: bool = setting("Connect with TLS.", default=False)
    ssl_verify: bool = setting("Verify the server's certificate.", default=True)
    username: Text | None = setting("User of the server.", default=None, referenceable=True)


class Vectordb(Record):
    """Where the vectors are kept."""

    dimensions: Integer = setting("Length of the vectors.")
    distance_metric: Literal["cosine", "euclidean"] = setting("How distance is measured.")
    pgvector: Pgvector = setting("The PostgreSQL database.", default=Pgvector)
    redis: Redis = setting("The Redis server.", default=Redis)
    strategy: Literal["pgvector", "redis"] = setting("Which of the two databases is used.")
    threshold: Number | None = setting("Largest distance that still matches.", default=None)


_LIBRARIES = {"pgvector": ("asyncpg",), "redis": ("redis", "numpy")}


def missing_library(vectordb: Vectordb) -> str | None:
    """What to install for this database; None where nothing is missing."""
    strategy = vectordb.strategy
    for name in _LIBRARIES[strategy]:
        if importlib.util.find_spec(name) is None:
            install = f"pip install 'kong-ai-proxy[{strategy}]'"
            return f"vectordb.strategy {strategy} needs {name}, which is not installed: {install}"
    return None
