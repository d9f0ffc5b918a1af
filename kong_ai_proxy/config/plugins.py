"""The configurations of the two plugins.

Fields, defaults and ranges are those of the Kong 3.15 plugin schemas.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

from kong_ai_proxy.config.acls import Acls
from kong_ai_proxy.config.fields import (
    Array,
    FreeMap,
    Integer,
    Record,
    Text,
    setting,
)
from kong_ai_proxy.config.records import LlmFormat, ModelTarget
from kong_ai_proxy.config.rules import REFUSED, EachNeeds, MustNotBe, Needs, Rule
from kong_ai_proxy.config.vectors import Embeddings, Vectordb

_CATEGORY = "Kind of generation, a label in logs and metrics."


class Common(Record):
    """The fields that both plugins have beside the model."""

    llm_format: LlmFormat = setting("Format that clients speak.", default="openai")
    max_request_body_size: Integer = setting(
        "Most bytes of a body that is parsed or kept for a retry; 0 means no limit.",
        default=1048576,
        gt=-1,
    )
    model_name_header: bool = setting(
        "Name the model in the response header X-Kong-LLM-Model.", default=True
    )
    response_streaming: Literal["allow", "always", "deny"] = setting(
        "Whether answers are streamed: as the client asks, always, or never.", default="allow"
    )


CATCHALL = "CATCHALL"
"""The description of targets for prompts that no other description is near to."""


class Target(ModelTarget):
    """One model that requests may go to."""

    description: Text | None = setting(
        "What the model is for; semantic balancing compares prompts with it.", default=None
    )
    metadata: FreeMap = setting("Free entries, merged into the model's options.", default={})
    weight: Integer = setting(
        "Share of the requests; with algorithm priority, the rank.",
        default=100,
        between=(1, 65535),
    )


class AiProxy(Common, ModelTarget):
    """The configuration of ai-proxy: one model."""

    genai_category: Literal[
        "audio/speech",
        "audio/transcription",
        "image/generation",
        "text/embeddings",
        "text/generation",
        "video/generation",
    ] = setting(_CATEGORY, default="text/generation")

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The one model as a target, so that both plugins read alike."""
        target = Target(
            auth=self.auth, logging=self.logging, model=self.model, route_type=self.route_type
        )
        return (target,)


_TIMEOUT = (1, 2147483646)


class Balancer(Record):
    """How a target is chosen, and what happens when it fails."""

    rules: ClassVar[tuple[Rule, ...]] = (
        MustNotBe(
            "algorithm",
            ("lowest-usage",),
            "tokens_count_strategy",
            "llm-accuracy",
            REFUSED["balancer.tokens_count_strategy llm-accuracy"],
        ),
    )

    algorithm: Literal[
        "consistent-hashing",
        "least-connections",
        "lowest-latency",
        "lowest-usage",
        "priority",
        "round-robin",
        "semantic",
    ] = setting("How the target of a request is chosen.", default="round-robin")
    connect_timeout: Integer = setting(
        "Time for connecting to the provider, in ms.", default=60000, between=_TIMEOUT
    )
    fail_timeout: Integer = setting(
        "How long a failed target stays out, in ms.", default=10000, between=_TIMEOUT
    )
    failover_criteria: Array[
        Literal[
            "error",
            "http_403",
            "http_404",
            "http_429",
            "http_500",
            "http_502",
            "http_503",
            "http_504",
            "invalid_header",
            "non_idempotent",
            "timeout",
        ]
    ] = setting("Failures after which the next target is tried.", default=("error", "timeout"))
    hash_on_header: Text = setting(
        "Header that consistent-hashing hashes.", default="X-Kong-LLM-Request-ID"
    )
    latency_strategy: Literal["e2e", "tpot"] = setting(
        "Latency that lowest-latency compares: a whole answer's or an output token's.",
        default="tpot",
    )
    max_fails: Integer = setting(
        "Failures, in a row or not, that take a target out; 0 means never.",
        default=0,
        between=(0, 32767),
    )
    read_timeout: Integer = setting(
        "Time between two reads from the provider, in ms.", default=60000, between=_TIMEOUT
    )
    retries: Integer = setting("Most tries after the first.", default=5, between=(0, 32767))
    slots: Integer = setting("Slots of the balancer's ring.", default=10000, between=(10, 65536))
    tokens_count_strategy: Literal[
        "completion-tokens", "cost", "llm-accuracy", "prompt-tokens", "total-tokens"
    ] = setting("Usage that lowest-usage compares.", default="total-tokens")
    write_timeout: Integer = setting(
        "Time between two writes to the provider, in ms.", default=60000, between=_TIMEOUT
    )


_SEMANTIC = ("balancer.algorithm", "semantic")
_COST = (("balancer.algorithm", "lowest-usage"), ("balancer.tokens_count_strategy", "cost"))


class AiProxyAdvanced(Common):
    """The configuration of ai-proxy-advanced: several models and how to choose among them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Needs(*_SEMANTIC, ("embeddings",), "must set 'embeddings' for algorithm semantic"),
        Needs(*_SEMANTIC, ("vectordb",), "must set 'vectordb' for algorithm semantic"),
        EachNeeds(
            (_SEMANTIC,), "targets", "description", "must set 'description' for algorithm semantic"
        ),
        *(
            EachNeeds(
                _COST,
                "targets",
                f"model.options.{name}",
                f"must set 'model.options.{name}' for tokens_count_strategy cost",
            )
            for name in ("input_cost", "output_cost")
        ),
    )

    acls: Acls = setting("Who may use which model.", default=Acls)
    balancer: Balancer = setting("How a target is chosen.", default=Balancer)
    embeddings: Embeddings | None = setting("Embedding model for semantic balancing.", default=None)
    genai_category: Literal[
        "audio/speech",
        "audio/transcription",
        "image/generation",
        "realtime/generation",
        "text/embeddings",
        "text/generation",
        "video/generation",
    ] = setting(_CATEGORY, default="text/generation")
    targets: Array[Target] = setting("Models that requests may go to.", len_min=1)
    vectordb: Vectordb | None = setting("Vector database for semantic balancing.", default=None)
