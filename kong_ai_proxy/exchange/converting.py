"""access of a request that changes its format on the way to the provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.conversion import OURS
from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.exchange.translation import ChatWay, EmbeddingsWay, Way
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import (
    ChatClient,
    ChatProvider,
    Context,
    EmbeddingsClient,
    EmbeddingsProvider,
)
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.base import Call, Endpoint, Provider

_PARTS = {
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning",
    "response_format": "output",
    "tool_choice": "tool_choice",
}
"""Parameters that are no settings of a Conversation but parts of it."""

MAX_TURNS = 10_000
"""Messages of one request that is converted: more than any conversation has."""

MAX_TOOLS = 1_024
"""Tools of one such request: OpenAI takes 128."""

MAX_MEMBERS = 1_024
"""Members of its JSON object: some have thirty."""

_MOST = {
    "contents": MAX_TURNS,
    "functions": MAX_TOOLS,
    "input": MAX_TURNS,
    "messages": MAX_TURNS,
    "tools": MAX_TOOLS,
}

_DEFAULTS = ("temperature", "top_p", "top_k", "max_tokens")


class Converted(NamedTuple):
    """A request in the provider's format, and how its answer comes back."""

    body: dict[str, object]
    dropped: tuple[str, ...]
    way: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Converting:
    """Client format x upstream format, for one call."""

    asked: Asked
    provider: Provider
    endpoint: Endpoint
    call: Call
    counts_usage: bool
    """Whether somebody here wants to know what a stream has used."""
    now: int
    id: str
    secrets: tuple[str, ...] = ()
    """The operator's keys, for the errors of providers that quote them."""

    def access(self, body: Mapping[str, object]) -> Converted:
        """The request for the provider. Raises Refused (400) for what cannot be carried over."""
        if self.call.route_type == openai.EMBEDDINGS:
            return self._embeddings(body)
        return self._chat(body)

    # ---- conversations

    def answered(self, body: Mapping[str, object], *, is_carried: bool) -> ChatWay:
        """How an answer comes back to a request that was not converted."""
        return self._way(self._context(openai.wants_usage(body)), is_carried=is_carried)

    def _way(self, context: Context, *, is_carried: bool = False) -> ChatWay:
        return ChatWay(
            llm_format=self.asked.client,
            client=cast(ChatClient, self.asked.codec),
            provider=cast(ChatProvider, self.endpoint.codec),
            context=context,
            source=self._source,
            wants_stream=self.call.stream,
            is_carried=is_carried,
            secrets=self.secrets,
        )

    def _chat(self, body: Mapping[str, object]) -> Converted:
        _check_length(body)
        client = cast(ChatClient, self.asked.codec)
        provider = cast(ChatProvider, self.endpoint.codec)
        try:
            said = client.parse_request(body, model=self.asked.model, stream=self.asked.stream)
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        asked, refused = self._allowed(self._with_defaults(said))
        refused = tuple(name for name in refused if name in said.settings or name in _PARTS)
        rendered = self._rendered(lambda: provider.render_request(asked))
        prefix = said.prompt if said.is_completion and said.settings.get("echo") else ""
        context = self._context(said.wants_usage)._replace(prefix=prefix, request=body)
        way = self._way(context)
        dropped = (*refused, *rendered.dropped)
        return Converted(self._finished(rendered.body), dropped, way)

    def _with_defaults(self, said: Conversation) -> Conversation:
        """With the configuration's defaults, the real model and what the relay wants to know."""
        options = self.call.options
        own = {name: getattr(options, name) for name in _DEFAULTS}
        defaults = {name: value for name, value in own.items() if value is not None}
        usage = (said.wants_usage or self.counts_usage) and self.provider.usage_on_request
        return replace(
            said,
            model=self.call.model,
            stream=self.call.stream,
            wants_usage=usage and self.call.stream,
            extra=_allowed_extra(said.extra),
            settings={**defaults, **said.settings},
        )

    def _allowed(self, asked: Conversation) -> tuple[Conversation, tuple[str, ...]]:
        """Without the settings that the provider refuses, and their names."""
        refused = self.provider.refused_for(self.call)
        apart = {name: _PARTS[name] for name in refused & _PARTS.keys()}
        said = {name: part for name, part in apart.items() if getattr(asked, part) is not None}
        gone = tuple(sorted((refused & asked.settings.keys()) | said.keys()))
        if not gone:
            return asked, gone
        cleared: dict[str, Any] = dict.fromkeys(said.values())
        return replace(asked.without(gone), **cleared), gone

    # ---- embeddings

    def _embeddings(self, body: Mapping[str, object]) -> Converted:
        client = cast(EmbeddingsClient, self.asked.codec)
        provider = cast(EmbeddingsProvider, self.endpoint.codec)
        try:
            said = client.parse_request(body, model=self.asked.model)
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        dimensions = said.dimensions or self.call.options.embeddings_dimensions
        asked = replace(said, model=self.call.model, dimensions=dimensions)
        asked = replace(asked, extra=_allowed_extra(said.extra))
        rendered = self._rendered(lambda: provider.render_request(asked))
        way = EmbeddingsWay(
            llm_format=self.asked.client,
            client=client,
            provider=provider,
            context=self._context(wants_usage=True),
            source=self._source,
            request=said,
            secrets=self.secrets,
        )
        return Converted(self._finished(rendered.body), rendered.dropped, way)

    # ---- both

    def _rendered(self, render: Callable[[], Rendered]) -> Rendered:
        try:
            return render()
        except FormatError as error:
            raise Refused(BAD_REQUEST, f"error transforming to {self._source}: {error}") from None

    def _finished(self, body: dict[str, object]) -> dict[str, object]:
        """With the provider's last touches."""
        if self.endpoint.codec is openai_chat.CHAT:
            self._rename_limit(body)
        if self.endpoint.change is not None:
            for name, value in self.endpoint.change(body, self.call).items():
                if value is REMOVED:
                    body.pop(name, None)
                else:
                    body[name] = value
        return body

    def _rename_limit(self, body: dict[str, object]) -> None:
        models = self.provider.completion_tokens_models
        if "max_tokens" in body and models is not None and models.match(self.call.model):
            body["max_completion_tokens"] = body.pop("max_tokens")

    def _context(self, wants_usage: bool) -> Context:
        return Context(
            model=self.call.model,
            id=self.id,
            now=self.now,
            wants_usage=wants_usage,
            thought_tags=self.provider.thought_tags and self.asked.client == "openai",
        )

    @property
    def _source(self) -> str:
        return f"{self.provider.name}://{self.call.route_type}"


def _check_length(body: Mapping[str, object]) -> None:
    """A step of ours for each message is time that other requests wait for."""
    if len(body) > MAX_MEMBERS:
        raise Refused(BAD_REQUEST, f"expected at most {MAX_MEMBERS} members")
    for name, most in _MOST.items():
        elements = body.get(name)
        if isinstance(elements, list) and len(elements) > most:
            raise Refused(BAD_REQUEST, f"{name}: expected at most {most} elements")


def _allowed_extra(extra: Mapping[str, object]) -> dict[str, object]:
    """Raises Refused for a member that only differs in case from one that rules look at."""
    try:
        openai.check_names(extra)
    except FormatError as error:
        raise Refused(BAD_REQUEST, f"extra_body: {error}") from None
    return {name: value for name, value in extra.items() if name not in OURS}
