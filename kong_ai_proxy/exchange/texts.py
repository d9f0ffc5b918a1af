"""Requests and answers inside of files: batches that are written in OpenAI's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange import asking, endpoints
from kong_ai_proxy.exchange.converting import Converting
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import (
    ChatClient,
    ChatProvider,
    Context,
    EmbeddingsClient,
    EmbeddingsProvider,
    ProviderCodec,
)
from kong_ai_proxy.formats.deltas import AnswerFailed, collect
from kong_ai_proxy.formats.embeddings import EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.base import Call, Endpoint, Provider

_MAX_DROPPED = 100  # names that are remembered: as many fit into no header


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTexts:
    """See providers.flow.Texts."""

    provider: Provider
    model: Model
    now: int
    id: str
    dropped: dict[str, None] = field(default_factory=dict)
    """Names of parameters that were left out of requests, in their order."""

    def real_model(self, named: str) -> str:
        """See Texts."""
        return self._named({"model": named})

    def request(
        self, route_type: str, body: Mapping[str, object], codec: ProviderCodec | None = None
    ) -> dict[str, object]:
        """See Texts."""
        try:
            openai.check_shape(body, route_type)
            openai.check_names(body)
            call = self._call(route_type, self._named(body))
            converted = self._converting(call, self._endpoint(call, codec)).access(body)
        except Refused as refused:
            raise FormatError(refused.message) from None
        room = _MAX_DROPPED - len(self.dropped)
        self.dropped.update(dict.fromkeys(converted.dropped[:room]))
        return converted.body

    def answer(
        self, route_type: str, value: object, codec: ProviderCodec | None = None, *, name: str = ""
    ) -> dict[str, object]:
        """See Texts."""
        client = asking.OPENAI_CODECS[route_type]
        if codec is None:
            try:
                found = endpoints.endpoint(
                    self.provider,
                    self._call(route_type, self.model.name or ""),
                    asking.in_openai_format(route_type),
                )
            except Refused as refused:
                raise FormatError(refused.message) from None
            codec = found.codec
        told = self.model.name or ""
        context = Context(model=told, id=name or self.id, now=self.now, wants_usage=True)
        if route_type == openai.EMBEDDINGS:
            embedded = cast(EmbeddingsProvider, codec).parse_answer(value)
            own = cast(EmbeddingsClient, client)
            request = EmbeddingsRequest(inputs=())
            return cast(dict[str, object], own.render_answer(embedded, request, context))
        try:
            answer = collect(cast(ChatProvider, codec).parse_answer(value))
        except AnswerFailed as failed:
            raise FormatError(failed.error.message) from None
        return cast(dict[str, object], cast(ChatClient, client).render_answer(answer, context))

    def _named(self, body: Mapping[str, object]) -> str:
        """The real name. Raises FormatError for another one than the configured."""
        asked, own = openai.requested_model(body), self.model.name
        if own and asked not in (None, own, self.model.model_alias):
            raise FormatError(f"cannot use own model - must be: {own}")
        name = own or asked
        if not name:
            raise FormatError("model parameter not found in request, nor in gateway configuration")
        return name

    def _call(self, route_type: str, name: str) -> Call:
        return Call(route_type, name, self.model.options)

    def _endpoint(self, call: Call, codec: ProviderCodec | None) -> Endpoint:
        found = endpoints.endpoint(self.provider, call, asking.in_openai_format(call.route_type))
        if codec is None or codec is found.codec:
            return found
        return found._replace(codec=codec, change=None)

    def _converting(self, call: Call, endpoint: Endpoint) -> Converting:
        return Converting(
            asked=asking.in_openai_format(call.route_type),
            provider=self.provider,
            endpoint=endpoint,
            call=call,
            counts_usage=False,
            now=self.now,
            id=self.id,
        )
