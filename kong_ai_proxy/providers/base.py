"""What a provider is: where it lives, what it speaks, and what its own endpoint does not accept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.providers.flow import Flow

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Call(NamedTuple):
    """What a request asks of a provider."""

    route_type: str
    model: str
    """The real name, resolved; "" where nobody named one."""
    options: ModelOptions
    """With its templates expanded."""
    named: str = ""
    """The configured model; "" where the client chooses."""
    stream: bool = False
    client: str = "openai"
    """The client's format, as `llm_format` names it: some providers offer a model in several
    formats and the client's own is best."""
    creates: bool = True
    """Whether it makes something new of a model: an answer, or an object that has one."""
    query: Mapping[str, str] = _NOTHING
    """The client's, but for credentials."""
    betas: frozenset[str] = frozenset()
    """What the client's header `OpenAI-Beta` lists."""


class Native(NamedTuple):
    """An operation of a client's native format, as its path says it."""

    format: str
    """As `llm_format` names it."""
    operation: str
    """In the format's own words: converse, generateContent, messages/count_tokens, rerank ..."""
    model: str = ""
    """As the path names it, decoded; "" where it does not."""
    path: str = ""
    """The part of the client's path that belongs to the format, percent-encoded, from its first
    slash: /v1/messages/count_tokens, /model/x/converse."""


Change = Callable[[Mapping[str, object], Call], Mapping[str, object]]
"""Gets a request's JSON object in the provider's format; returns members to set or, with
`json_object.REMOVED`, to take out."""


class Endpoint(NamedTuple):
    """Where one call goes and what is spoken there."""

    path: str
    """Percent-encoded; starts with "/"."""
    codec: ProviderCodec | None = None
    """None: whatever the client speaks, which is not looked into."""
    query: str = ""
    """Raw; the client's own parameters follow it."""
    base_url: str = ""
    """Where this one endpoint lives elsewhere than the provider's others."""
    change: Change | None = None
    """Last touches on the body, also of one that is not converted."""
    flow: Flow | None = None
    """In place of all: it takes several calls, or other ones than the client's."""
    own_query: Mapping[str, str | None] = _NOTHING
    """Parameters that neither a client nor the configured model's name is put in place of; None
    for one that does not go up. Where it is empty, a WebSocket gets the configured model."""
    usage_on_request: bool = True
    """Whether a stream tells its usage when `stream_options.include_usage` asks for it, as far as
    that depends on the client's own words (a version in its query)."""
    session_model: Callable[[str], str] | None = None
    """Where the first message of a session names the model: how the provider calls one there. It
    raises FormatError for what is no model's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider. Everything here can be read off the provider's API reference."""

    name: str
    """As a configuration names it."""
    base_url: str | Callable[[ModelOptions], str]
    """Scheme, host and port of the provider's own endpoint; "" where only the operator knows."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """The path of each route type that speaks OpenAI's format, or that of `codecs`."""
    codecs: Mapping[str, ProviderCodec] = field(default_factory=dict)
    """What is spoken at `paths`, where it is not OpenAI's format."""
    changes: Mapping[str, Change] = field(default_factory=dict)
    """Last touches on the bodies that go to `paths`."""
    answers_loosely: bool = False
    """Whether conversations are answered in OpenAI's format, but without what its clients may rely
    on (an id, the role once, usage when it was asked for and only then), so that they are read and
    written anew."""
    tells_usage_unasked: bool = False
    """Whether a stream in OpenAI's format ends with its usage in any case: it is taken out where
    the client did not ask for it."""
    flows: Mapping[str, Flow] = field(default_factory=dict)
    """The route types that take several calls."""
    endpoint: Callable[[Call], Endpoint] | None = None
    """In place of `paths`, for providers whose paths depend on the model. Called for the route
    types of `endpoints` only. Raises FormatError, for a model name that does not fit for one."""
    endpoints: frozenset[str] = frozenset()
    """The route types that `endpoint` knows."""
    native: Callable[[Native, Call], Endpoint | None] | None = None
    """For clients that speak the provider's own format: where an operation lives that no other
    provider has, or None for an operation that it does not have either."""
    natives: frozenset[str] = frozenset()
    """The values of `llm_format` that `native` knows."""
    variant: Callable[[ModelOptions], Provider] | None = None
    """Which other row it is, where the options say that."""
    headers: Callable[[ModelOptions], Mapping[str, str]] = lambda _: _NOTHING
    """Headers to set, where the client does not bring them."""
    refused: frozenset[str] = frozenset()
    """Parameters that the provider's own endpoint answers with an error; they are dropped. Under
    OpenAI's names."""
    refused_by_model: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = ()
    """The same for models whose name the pattern finds (`search`)."""
    completion_tokens_models: re.Pattern[str] | None = None
    """Models that take `max_completion_tokens` and refuse `max_tokens`."""
    is_any_server: bool = False
    """Whether `upstream_url` may lead to a server of any kind, which need not refuse the same."""
    has_upstream_path: bool = False
    """Whether `endpoint` puts the option `upstream_path` into its path itself."""
    usage_on_request: bool = True
    """Whether a stream tells its usage when `stream_options.include_usage` asks for it."""
    thought_tags: bool = False
    """Whether OpenAI clients get thoughts as <thought> in the text; see codec.Context."""
    names_model: frozenset[str] = frozenset()
    """The route types whose bodies name the model in a way that only the provider's row knows, so
    that they are read whatever else the configuration says."""
    required_headers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By route type the header without which the provider refuses, and a value it must list."""

    @property
    def route_types(self) -> frozenset[str]:
        """What it supports; `preserve` always works."""
        return self.endpoints | self.paths.keys() | self.flows.keys()

    def base(self, options: ModelOptions) -> str:
        """Its `base_url` for these options."""
        return self.base_url if isinstance(self.base_url, str) else self.base_url(options)

    def refused_for(self, call: Call) -> frozenset[str]:
        """Names of parameters that this call must not have."""
        elsewhere = self.is_any_server and call.options.upstream_url
        refused = frozenset() if elsewhere else self.refused
        for pattern, names in self.refused_by_model:
            if pattern.search(call.model):
                refused |= names
        return refused

    def find(self, options: ModelOptions) -> Provider:
        """The row for these options: this one or a variant of it."""
        return self.variant(options) if self.variant else self
