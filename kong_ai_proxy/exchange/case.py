"""One client request x one target, as far as it is certain before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kong_ai_proxy.auth.identity import Identity
from kong_ai_proxy.config import Model, Target
from kong_ai_proxy.exchange import head, privacy
from kong_ai_proxy.exchange.answering import chats_in_openai
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.endpoints import asked_as, check_keeps_nothing, endpoint
from kong_ai_proxy.exchange.form import Form
from kong_ai_proxy.exchange.keys import Keys
from kong_ai_proxy.exchange.messages import NOTHING, ClientRequest
from kong_ai_proxy.exchange.subpath import Subpath, subpath
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ClientCodec, ProviderCodec
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.providers.base import Call
from kong_ai_proxy.providers.registry import PROVIDERS

_BETA_PROTOCOL = "openai-beta.realtime-v1"
Content = JsonObject | Form | None
"""The request's body as far as it is looked at."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about every request, whichever target it goes to."""

    response_streaming: str
    model_name_header: bool


class Case:
    """Who is asked for what, and in which words. Nothing here changes while it is answered."""

    def __init__(
        self,
        target: Target,
        model: Model,
        rules: Rules,
        request: ClientRequest,
        content: Content,
        asked: Asked,
        *,
        identity: Identity | None,
        relayed: bool,
        counts: bool,
    ) -> None:
        """`model` is the target's with its templates expanded, `identity` as whom a cloud is
        called; `counts`: the balancer wants to know the usage. Raises Refused."""
        self.target = target
        self.model = model
        self.rules = rules
        self.request = request
        self.content = content
        self.asked = asked
        self.identity = identity
        self.relayed = relayed
        self.json = content.value if isinstance(content, JsonObject) else {}
        self.operation = openai.OPERATIONS[asked.operation]
        self.provider = PROVIDERS[model.provider].find(model.options)
        self.keys = Keys(target.auth, request, self.json, has_identity=identity is not None)
        self.sub = self._subpath()
        self.requested = self._requested()
        """The model that the client named, as far as it is known before a form has passed."""
        self.call = self._call()
        self.is_asked_otherwise = self.call.route_type != asked.route_type
        """Whether the provider is asked for a conversation, not for the client's route type."""
        if self.is_asked_otherwise:
            check_keeps_nothing(self.provider, request, self.sub)
        self.endpoint = endpoint(self.provider, self.call, asked)
        carried = getattr(self.endpoint.codec, "carries", None)
        self.is_carried = carried is not None and carried is asked.codec
        """Whether the provider's format is the client's in an envelope."""
        self.converts = not self.is_carried and _differ(asked.codec, self.endpoint.codec)
        """Whether client and provider speak different formats."""
        self.is_rewritten = chats_in_openai(asked) and self.provider.answers_loosely
        """Whether the provider's answer is OpenAI's but for what its clients rely on."""
        self.counts = relayed and (target.logging.log_statistics or counts)
        """Whether somebody wants to know the usage."""
        self.setup = self._setup()
        """Who looks at the first message of a session, where that names the model."""

    @property
    def parameters(self) -> Mapping[str, object]:
        """What the client asks for by name: in its JSON, or for a WebSocket in its query."""
        if self.operation.websocket:
            return privacy.query_values(self.request.query)
        return self.json

    @property
    def creates(self) -> bool:
        """Whether the request makes a new object, or an answer, of a model."""
        if not self.operation.collections:
            return True
        first = self.operation.collections[0]
        return self.request.method == "POST" and self.sub == Subpath(first, "")

    def _subpath(self) -> Subpath:
        if not self.operation.collections:
            return Subpath("", "")
        flow = self.provider.flows.get(self.asked.route_type)
        more = flow.collections if flow else ()
        return subpath(self.request, more or self.operation.collections)

    def _requested(self) -> str | None:
        if isinstance(self.content, Form) and self.content.data is not None:
            return self.content.model()
        return self.asked.model or openai.requested_model(self.parameters)

    def _call(self) -> Call:
        return Call(
            route_type=asked_as(self.provider, self.asked.route_type),
            model=self.model.name or self.requested or "",
            options=self.model.options,
            named=self.model.name or "",
            stream=self._streams(),
            client=self.asked.client,
            creates=self.creates,
            query=self._plain_query(),
            betas=self._betas(),
        )

    def _streams(self) -> bool:
        if self.asked.stream is not None:
            return self.asked.stream
        return openai.wants_stream(self.json) or self.rules.response_streaming == "always"

    def _plain_query(self) -> Mapping[str, str]:
        """The client's, without credentials."""
        query = self.request.query
        if not query:
            return NOTHING
        return privacy.query_values(privacy.without(query, privacy.CREDENTIAL_QUERY))

    def _betas(self) -> frozenset[str]:
        """Browsers, which send no header of their own with a handshake, offer a subprotocol."""
        offered = head.values(self.request, "sec-websocket-protocol") & {_BETA_PROTOCOL}
        return head.values(self.request, "openai-beta") | ({"realtime=v1"} if offered else set())

    def _setup(self) -> live.Setup | None:
        called = self.endpoint.session_model
        if called is None:
            return None
        return live.Setup(called, self.model.name, self.model.model_alias)


def _differ(client: ClientCodec | None, provider: ProviderCodec | None) -> bool:
    return client is not None and provider is not None and client.name != provider.name
