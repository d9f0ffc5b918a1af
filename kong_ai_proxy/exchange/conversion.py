"""Client format x upstream format: what has to change in a request on its way to the provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.messages import NOTHING
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call, Change, Endpoint, Provider


class Changes(NamedTuple):
    """Members to set or take out of the client's JSON object or form, and which of its parameters
    were dropped."""

    members: Mapping[str, object] = NOTHING
    dropped: tuple[str, ...] = ()


OURS = frozenset({"model", "stream", "stream_options"})
"""Members that `extra_body` may not bring: rules of the configuration depend on them."""


def edited(body: Mapping[str, object], members: Mapping[str, object]) -> dict[str, object]:
    """`body` with these members set, or taken out where they are REMOVED."""
    both = {**body, **members}
    return {name: value for name, value in both.items() if value is not REMOVED}


class Conversion(Protocol):
    """Fresh for each attempt. Its methods have the names of Kong's phases."""

    def access(self, body: Mapping[str, object]) -> Changes:
        """What to change in the client's body."""


@dataclass(frozen=True, slots=True)
class Untouched:
    """Nothing is changed."""

    def access(self, body: Mapping[str, object]) -> Changes:
        """Nothing."""
        return Changes()


@dataclass(frozen=True, slots=True)
class SameFormat:
    """The client and the provider both speak the same format, which is not OpenAI's."""

    asked: Asked
    call: Call
    endpoint: Endpoint
    betas: str = ""
    """The client's header `anthropic-beta`, which has its place in the body elsewhere."""

    def access(self, body: Mapping[str, object]) -> Changes:
        """The real model, where the body names one, and the provider's last touches."""
        members: dict[str, object] = {}
        needs = "model" in body or (self.asked.codec is not None and not self.asked.model)
        if self._has_model_in_body and needs and body.get("model") != self.call.model:
            members["model"] = self.call.model
        if self.asked.stream is None and self.call.stream and body.get("stream") is not True:
            members["stream"] = True
        if self.endpoint.change is not None:
            whole = edited(body, members)
            if self.betas:
                own = whole.get("anthropic_beta")
                named = [name.strip() for name in self.betas.split(",")]
                whole["anthropic_beta"] = [*(own if isinstance(own, list) else []), *named]
            members.update(self.endpoint.change(whole, self.call))
        return Changes(members)

    @property
    def _has_model_in_body(self) -> bool:
        chat = self.asked.client == "huggingface" and self.asked.route_type == openai.CHAT
        return bool(self.call.model) and (self.asked.client in ("anthropic", "cohere") or chat)


@dataclass(frozen=True, slots=True)
class OpenAIToOpenAI:
    """The client and the provider both speak OpenAI's format."""

    provider: Provider
    model: Model
    route_type: str
    creates: bool
    """Whether the request makes something new, for which the configuration has defaults."""
    always_stream: bool
    counts_usage: bool
    """Whether somebody here wants to know what a stream has used."""
    call: Call
    change: Change | None = None
    """The provider's last touches."""

    def access(self, body: Mapping[str, object]) -> Changes:
        """Model, defaults from the configuration, and what the provider would refuse."""
        members: dict[str, object] = {}
        requested = body.get("model")
        if self.model.name and requested != self.model.name and (self.creates or requested):
            members["model"] = self.model.name
        if self.route_type == openai.EMBEDDINGS:
            self._default(members, body, "dimensions", self.model.options.embeddings_dimensions)
        elif self.route_type in openai.TEXT_ROUTE_TYPES and self.creates:
            self._text_generation(members, body)
        self._extra(members, body)
        dropped = self._drop_refused(members, body)
        if self.change is not None:
            members.update(self.change(edited(body, members), self.call))
        return Changes(members, dropped)

    def _extra(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        """`extra_body` holds members that a client's library does not know. None of them may get
        past a rule."""
        extra = body.get("extra_body")
        if not isinstance(extra, dict) or not self.creates:
            return
        members["extra_body"] = REMOVED
        openai.check_names(extra)
        for name, value in extra.items():
            if name not in OURS and name not in members:
                members[name] = value

    def _text_generation(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        options = self.model.options
        self._default(members, body, "temperature", options.temperature)
        self._default(members, body, "top_p", options.top_p)
        self._default(members, body, "top_k", options.top_k)
        self._limit_tokens(members, body)
        if self.always_stream and body.get("stream") is not True:
            members["stream"] = True
        if self.always_stream or openai.wants_stream(body):
            self._ask_for_usage(members, body)

    def _ask_for_usage(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        """Have the stream end with its usage (chat reference, `stream_options`). Responses always
        tell it."""
        options = body.get("stream_options") or {}
        if (
            self.counts_usage
            and self.provider.usage_on_request
            and self.route_type != openai.RESPONSES
            and isinstance(options, dict)
            and not openai.wants_usage(body)
        ):
            members["stream_options"] = {**options, "include_usage": True}

    def _limit_tokens(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        """`max_tokens` under the name the model takes, the client's value before the default."""
        if self.route_type == openai.RESPONSES:
            limit = self.model.options.max_tokens
            self._default(members, body, "max_output_tokens", limit)
            return
        if body.get("max_completion_tokens") is not None:
            return
        if not self._takes_completion_tokens(body):
            self._default(members, body, "max_tokens", self.model.options.max_tokens)
            return
        if body.get("max_tokens") is not None:
            members["max_tokens"] = REMOVED
            members["max_completion_tokens"] = body["max_tokens"]
        elif self.model.options.max_tokens is not None:
            members["max_completion_tokens"] = self.model.options.max_tokens

    def _takes_completion_tokens(self, body: Mapping[str, object]) -> bool:
        models = self.provider.completion_tokens_models
        name = self.model.name or body.get("model")
        return (
            self.route_type == openai.CHAT
            and models is not None
            and isinstance(name, str)
            and models.match(name) is not None
        )

    def _drop_refused(
        self, members: dict[str, object], body: Mapping[str, object]
    ) -> tuple[str, ...]:
        refused = self.provider.refused_for(self.call)
        for name in refused:
            members.pop(name, None)
        dropped = sorted(refused & body.keys())
        members.update(dict.fromkeys(dropped, REMOVED))
        # Where the answer is written anew, it ends with its usage all the same.
        tells = self.provider.answers_loosely or self.provider.tells_usage_unasked
        kept = {"stream_options"} if tells else set()
        return tuple(name for name in dropped if name not in kept)

    @staticmethod
    def _default(
        members: dict[str, object], body: Mapping[str, object], name: str, value: object
    ) -> None:
        if value is not None and body.get(name) is None:
            members[name] = value
