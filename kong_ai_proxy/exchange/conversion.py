"""Client format x upstream format: what has to change in a body on its way to the provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kong_ai_proxy.config import Model
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Provider


@dataclass(frozen=True, slots=True)
class BodyChanges:
    """Members to set or take out of the client's JSON, and which of its parameters were dropped."""

    members: Mapping[str, object] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


class Conversion(Protocol):
    """Fresh for each attempt. Its methods have the names of Kong's phases."""

    @property
    def needs_response(self) -> bool:
        """Whether the provider's answer has to be read or changed. If not, Kong carries it."""

    def access(self, body: Mapping[str, object]) -> BodyChanges:
        """What to change in the client's body."""


@dataclass(frozen=True, slots=True)
class Untouched:
    """Route type `preserve`: nothing is changed on either way."""

    needs_response: bool = False

    def access(self, body: Mapping[str, object]) -> BodyChanges:
        """Nothing."""
        return BodyChanges()


@dataclass(frozen=True, slots=True)
class OpenAIToOpenAI:
    """The client and the provider both speak OpenAI's format."""

    provider: Provider
    model: Model
    route_type: str
    always_stream: bool
    needs_response: bool = False

    def access(self, body: Mapping[str, object]) -> BodyChanges:
        """Model, defaults from the configuration, and what the provider would refuse."""
        members: dict[str, object] = {}
        if self.model.name and body.get("model") != self.model.name:
            members["model"] = self.model.name
        if self.route_type == openai.EMBEDDINGS:
            self._default(members, body, "dimensions", self.model.options.embeddings_dimensions)
        else:
            self._text_generation(members, body)
        return BodyChanges(members, self._drop_refused(members, body))

    def _text_generation(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        options = self.model.options
        self._default(members, body, "temperature", options.temperature)
        self._default(members, body, "top_p", options.top_p)
        self._default(members, body, "top_k", options.top_k)
        self._limit_tokens(members, body)
        if self.always_stream and body.get("stream") is not True:
            members["stream"] = True

    def _limit_tokens(self, members: dict[str, object], body: Mapping[str, object]) -> None:
        """`max_tokens` under the name the model takes, the client's value before the default."""
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
        """Another server behind `upstream_url` may well take what the provider refuses."""
        if self.model.options.upstream_url:
            return ()
        for name in self.provider.refused:
            members.pop(name, None)
        dropped = tuple(sorted(self.provider.refused & body.keys()))
        members.update(dict.fromkeys(dropped, REMOVED))
        return dropped

    @staticmethod
    def _default(
        members: dict[str, object], body: Mapping[str, object], name: str, value: object
    ) -> None:
        if value is not None and body.get(name) is None:
            members[name] = value
