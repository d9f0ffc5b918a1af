"""One client request x one target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kong_ai_proxy.auth import sign
from kong_ai_proxy.config import Model, Target
from kong_ai_proxy.exchange import privacy
from kong_ai_proxy.exchange.address import address
from kong_ai_proxy.exchange.conversion import (
    BodyChanges,
    Conversion,
    OpenAIToOpenAI,
    Untouched,
)
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import Address, ClientRequest, UpstreamRequest
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.providers.registry import PROVIDERS

MODEL_HEADER = "x-kong-llm-model"
DROPPED_HEADER = "x-kong-ai-dropped-params"
MAX_MODEL_HEADER = 512
"""Longest value of MODEL_HEADER: the name may be the client's."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about every request, whichever target it goes to."""

    response_streaming: str
    model_name_header: bool


class Attempt:
    """One frozen client request x one target; never used twice, so nothing leaks into the next.

    `body` is None where it was not read: route type `preserve` without a rule to check.
    """

    __slots__ = ("_auth", "_body", "_conversion", "_model", "_request", "_route_type", "_rules")

    def __init__(
        self,
        target: Target,
        model: Model,
        rules: Rules,
        request: ClientRequest,
        body: JsonObject | None,
    ) -> None:
        """`model` is the target's with its templates expanded."""
        self._auth = target.auth
        self._route_type = target.route_type
        self._model = model
        self._rules = rules
        self._request = request
        self._body = body
        self._conversion = self._choose_conversion()

    def _choose_conversion(self) -> Conversion:
        if self._route_type == openai.PRESERVE:
            return Untouched()
        always = self._rules.response_streaming == "always"
        provider = PROVIDERS[self._model.provider]
        return OpenAIToOpenAI(provider, self._model, self._route_type, always)

    @property
    def needs_response(self) -> bool:
        """Whether the answer must be read or changed. False: Kong can carry it."""
        return self._conversion.needs_response

    def start(self) -> UpstreamRequest:
        """The request to the provider. Raises Refused."""
        self._check_model()
        self._check_streaming()
        changes = self._conversion.access(self._members())
        credentials = self._credentials()
        headers = {**credentials.headers, **self._subprotocols()}
        place = self._address(credentials)
        return UpstreamRequest(
            method=self._request.method if self._route_type == openai.PRESERVE else "POST",
            address=place,
            set_headers={name: value for name, value in headers.items() if value},
            drop_headers=self._drop_headers(headers),
            body=self._changed_body(changes, credentials),
            secret_headers=self._secret_headers(headers),
            secret_query=self._secret_query(credentials, place.query),
            response_headers=self._response_headers(changes),
        )

    def _requested_model(self) -> str | None:
        return openai.requested_model(self._body.value) if self._body else None

    def _check_model(self) -> None:
        requested = self._requested_model()
        own = {self._model.name}
        if self._route_type != openai.PRESERVE:  # which could not put the name for the alias
            own.add(self._model.model_alias)
        if self._model.name and requested is not None and requested not in own:
            raise Refused(BAD_REQUEST, f"cannot use own model - must be: {self._model.name}")
        if not self._model.name and requested is None and self._route_type != openai.PRESERVE:
            raise Refused(
                BAD_REQUEST, "model parameter not found in request, nor in gateway configuration"
            )

    def _check_streaming(self) -> None:
        streams = self._body is not None and openai.wants_stream(self._body.value)
        if streams and self._rules.response_streaming == "deny":
            raise Refused(BAD_REQUEST, "response streaming is not enabled for this LLM")

    def _credentials(self) -> sign.Credentials:
        try:
            return sign.static(
                self._auth,
                [name for name, values in self._request.headers.items() if any(values)],
                [n for n, value in privacy.query_values(self._request.query).items() if value],
                [n for n, value in self._members().items() if value],
            )
        except sign.AuthError as error:
            raise Refused(SERVER_ERROR, str(error)) from None

    def _members(self) -> Mapping[str, object]:
        return self._body.value if self._body else {}

    def _address(self, credentials: sign.Credentials) -> Address:
        provider = PROVIDERS[self._model.provider]
        found = address(provider, self._model, self._route_type, self._request)
        own = privacy.joined(found.query, credentials.query)
        client = privacy.without(self._request.query, self._dropped_query(own))
        return found._replace(query="&".join(part for part in (own, client) if part))

    def _dropped_query(self, own: str) -> set[str]:
        """The operator's parameters replace the client's; the client's credentials stay here."""
        dropped = set(privacy.query_values(own))
        if sign.is_configured(self._auth):
            dropped |= privacy.CREDENTIAL_QUERY - self._overridden()
        return dropped

    def _drop_headers(self, replaced: Mapping[str, str]) -> frozenset[str]:
        dropped = privacy.dropped_headers(
            self._request.headers,
            credentials=sign.is_configured(self._auth),
            kept=self._overridden(),
            replaced=replaced,
        )
        emptied = {name for name, value in replaced.items() if not value}
        return frozenset(dropped - replaced.keys() | emptied)

    def _subprotocols(self) -> dict[str, str]:
        """Browsers offer the key as a WebSocket subprotocol, having no other way."""
        offered = self._request.headers.get("sec-websocket-protocol")
        if not offered or not sign.is_configured(self._auth) or self._auth.allow_override:
            return {}
        kept = privacy.subprotocols(offered)
        return {} if kept == ", ".join(offered) else {"sec-websocket-protocol": kept}

    def _secret_headers(self, headers: Mapping[str, str]) -> frozenset[str]:
        """Those that are set, and the client's own credentials where they pass."""
        client = privacy.CREDENTIAL_HEADERS | self._overridden()
        return frozenset(headers.keys() | (client & self._request.headers.keys()))

    def _secret_query(self, credentials: sign.Credentials, query: str) -> frozenset[str]:
        """What is set, what the operator wrote into the URL, and the client's own that pass."""
        url = self._model.options.upstream_url or ""
        own = credentials.query.keys() | privacy.query_values(url.partition("?")[2]).keys()
        client = privacy.CREDENTIAL_QUERY | {self._auth.param_name or ""}
        return frozenset(own | (privacy.query_values(query).keys() & client))

    def _overridden(self) -> set[str]:
        """Names under which the client may bring its own credential."""
        if not self._auth.allow_override:
            return set()
        names = (self._auth.header_name, self._auth.param_name)
        return {name.lower() for name in names if name}

    def _changed_body(self, changes: BodyChanges, credentials: sign.Credentials) -> bytes | None:
        members = {**changes.members, **credentials.body}
        if not members:
            return None
        if self._route_type == openai.PRESERVE or self._body is None:
            raise Refused(
                SERVER_ERROR,
                "auth.param_location 'body' cannot be used with route_type 'preserve', "
                "which leaves the body as it is",
            )
        try:
            openai.check_names(self._body.value, credentials.body)
        except openai.FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        return self._body.edited(members)

    def _answering_model(self) -> str | None:
        """What the provider is asked for; `preserve` only knows what the client wrote."""
        requested = self._requested_model()
        if self._route_type == openai.PRESERVE:
            return requested
        return self._model.name or requested

    def _response_headers(self, changes: BodyChanges) -> dict[str, str]:
        headers: dict[str, str] = {}
        name = self._answering_model()
        wanted = self._rules.model_name_header or "kong-debug" in self._request.headers
        if name and wanted:
            text = _header_text(f"{self._model.provider}/{name}")
            headers[MODEL_HEADER] = text[:MAX_MODEL_HEADER]
        if changes.dropped:
            headers[DROPPED_HEADER] = ", ".join(changes.dropped)
        return headers


def _header_text(text: str) -> str:
    """`text` with what a header value cannot hold percent-encoded: the name is the client's."""
    return re.sub(
        r"[^\x21-\x7e]", lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), text
    )
