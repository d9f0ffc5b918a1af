"""The request to the provider: where it goes, as whom, and with which body."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import orjson

from kong_ai_proxy.auth import sign
from kong_ai_proxy.auth.identity import AwsIdentity
from kong_ai_proxy.exchange import added_headers, cloud, head, model_rules, privacy
from kong_ai_proxy.exchange.address import address
from kong_ai_proxy.exchange.answering import leads_to_results, speaks_openai
from kong_ai_proxy.exchange.case import Case
from kong_ai_proxy.exchange.conversion import (
    Changes,
    Conversion,
    OpenAIToOpenAI,
    SameFormat,
    Untouched,
)
from kong_ai_proxy.exchange.converting import Converting
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.form import Form, FormFields
from kong_ai_proxy.exchange.keys import secrets_of
from kong_ai_proxy.exchange.messages import Address, BodyFilter, Env, UpstreamRequest
from kong_ai_proxy.exchange.subpath import Subpath
from kong_ai_proxy.exchange.translation import Way
from kong_ai_proxy.formats import coding, openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED, JsonObject


class Outgoing:
    """Makes the request of one case, and knows afterwards what was made of it."""

    def __init__(self, case: Case) -> None:
        self.requested = case.requested
        """The model that the client named; while a form passes, it becomes known."""
        self.dropped: tuple[str, ...] = ()
        """Parameters that did not go up."""
        self.asks_for_usage = False
        """Whether it was us who asked for a stream's usage."""
        self.way: Way | None = None
        """How the answer is converted; None where it is not."""
        self.place: Address | None = None
        """Where it goes."""
        self.secrets = case.keys.secrets
        """Texts of the operator's that must be in no log, wherever they turn up."""
        self._case = case

    @property
    def model(self) -> str | None:
        """What the provider is asked for; `preserve` only knows what the client wrote."""
        case = self._case
        if case.target.route_type == openai.PRESERVE or not case.operation.model:
            return self.requested
        told = case.setup.model if case.setup else None
        return case.model.name or told or self.requested

    def response_headers(self) -> dict[str, str]:
        """Headers for the client's answer."""
        case, model = self._case, self.model
        wanted = case.rules.model_name_header or "kong-debug" in case.request.headers
        name = f"{case.model.provider}/{model}" if model else ""
        return added_headers.added(name if wanted else "", self.dropped)

    def request(self, env: Env) -> UpstreamRequest:
        """The request to the provider. Raises Refused."""
        case = self._case
        self._check_required_header()
        self.check()
        credentials = case.keys.credentials(env.credential)
        self.secrets += secrets_of(env.credential)
        body = self._body(env, credentials)
        headers = {
            **self._provider_headers(),
            **credentials.headers,
            **case.keys.subprotocols(),
            **self._accepted(),
        }
        place = self.place = self._address(credentials)
        headers |= self._signature(env, place, body)
        return UpstreamRequest(
            method=self._method(),
            address=place,
            set_headers={name: value for name, value in headers.items() if value},
            drop_headers=self._drop_headers(headers),
            body=body,
            secret_headers=frozenset() if case.relayed else case.keys.secret_headers(headers),
            secret_query=case.keys.secret_query(
                credentials, place.query, case.model.options.upstream_url
            ),
            response_headers=self.response_headers(),
        )

    def _provider_headers(self) -> dict[str, str]:
        """What the provider wants to see, and the client did not say in its own words."""
        case = self._case
        wanted = case.provider.headers(case.model.options)
        sent = case.request.headers if not case.converts else {}
        headers = {name: value for name, value in wanted.items() if name not in sent}
        if case.converts:
            headers["content-type"] = "application/json"
            headers["accept"] = "*/*"
        return headers

    def _signature(
        self, env: Env, place: Address, body: bytes | BodyFilter | None
    ) -> dict[str, str]:
        """Comes last: it covers all that is sent."""
        case = self._case
        own = case.content.raw if isinstance(case.content, JsonObject) else b""
        sent = body if isinstance(body, bytes) else own
        return cloud.signature(case.identity, env, self._method(), place, sent)

    def _method(self) -> str:
        case = self._case
        return case.asked.method(case.request.method)

    def _address(self, credentials: sign.Credentials) -> Address:
        case = self._case
        found = address(
            case.provider,
            case.model,
            case.call.route_type,
            case.request,
            Subpath("", "") if case.is_asked_otherwise else case.sub,
            case.endpoint,
        )
        added = dict(credentials.query)
        fixed = case.endpoint.own_query
        if fixed:
            added.update({name: value for name, value in fixed.items() if value is not None})
        elif case.operation.websocket and not openai.session_without_model(case.parameters):
            # Also where the client named it: whatever else a server may read as a model goes.
            added.update({"model": case.model.name} if case.model.name else {})
        own = privacy.joined(found.query, added) if added else found.query
        query = self._query(own)
        return found if query == found.query else found._replace(query=query)

    def _query(self, own: str) -> str:
        """The operator's parameters, the endpoint's and the client's."""
        case = self._case
        client, default = case.request.query, case.endpoint.query
        if client:
            dropped = case.keys.dropped_query(own) | case.endpoint.own_query.keys()
            client = privacy.without(client, dropped)
        if default and case.converts:  # the client's are words of another format
            client = privacy.without(client, privacy.query_values(default)) if client else ""
        elif default and client:
            default = privacy.without(default, privacy.query_values(client))
        default = privacy.without(default, privacy.query_values(own)) if own else default
        return "&".join(part for part in (own, default, client) if part)

    def _drop_headers(self, replaced: Mapping[str, str]) -> frozenset[str]:
        case = self._case
        dropped = case.keys.dropped_headers(replaced)
        if not case.converts and not isinstance(case.identity, AwsIdentity):
            return dropped
        foreign = privacy.native_headers(case.request.headers)
        return dropped | (foreign - replaced.keys())

    def _accepted(self) -> dict[str, str]:
        """Only what the relay can undo is asked for, and nothing that delays a stream."""
        case = self._case
        if not case.relayed:
            return {}
        if leads_to_results(case.asked):
            return {"accept-encoding": "identity"}
        takes_gzip = _takes_gzip(case.request.header("accept-encoding"))
        streams = case.call.stream
        return {"accept-encoding": "gzip, identity" if takes_gzip and not streams else "identity"}

    # ---- the configuration's rules

    def _check_required_header(self) -> None:
        case = self._case
        required = case.provider.required_headers.get(case.asked.route_type)
        if required is None:
            return
        name, value = required
        if value not in head.values(case.request, name):
            raise Refused(BAD_REQUEST, f"expected the header OpenAI-Beta: {value}")

    def check(self) -> None:
        """Hold it to the configuration's rules. Raises Refused."""
        self._check_model()
        self._check_streaming()

    def _check_model(self) -> None:
        case = self._case
        if case.operation.websocket:
            model_rules.check_query(case.request)
        self._check_requested(self.requested)
        model_rules.check_present(case.model, case.call.route_type, case.endpoint, self.requested)

    def _check_requested(self, requested: str | None) -> None:
        case = self._case
        model_rules.check_requested(case.model, case.target.route_type, case.asked, requested)

    def _check_streaming(self) -> None:
        case = self._case
        if case.rules.response_streaming != "deny":
            return
        in_query = privacy.values(case.request.query, "stream")
        if case.asked.stream or openai.wants_stream(case.json) or not all(map(_is_no, in_query)):
            self._refuse_stream_if_denied()

    def _refuse_stream_if_denied(self) -> None:
        if self._case.rules.response_streaming == "deny":
            raise Refused(BAD_REQUEST, "response streaming is not enabled for this LLM")

    # ---- its body

    def _body(self, env: Env, credentials: sign.Credentials) -> bytes | BodyFilter | None:
        """The body for the provider; None where the client's goes on as it is."""
        case = self._case
        if case.converts:
            return self._converted_body(env, credentials)
        if case.is_carried or case.is_rewritten:
            self.way = self._converting(env).answered(case.json, is_carried=case.is_carried)
        try:
            changes = self._conversion().access(case.parameters)
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        self.dropped = changes.dropped
        self.asks_for_usage = changes.members.get("stream_options", REMOVED) is not REMOVED
        return self._changed_body(changes, credentials)

    def _converted_body(self, env: Env, credentials: sign.Credentials) -> bytes:
        case = self._case
        if not isinstance(case.content, JsonObject):
            raise Refused(BAD_REQUEST, "expected a JSON object as the request's body")
        converted = self._converting(env).access(case.json)
        self.dropped = tuple(dict.fromkeys(converted.dropped))
        self.way = converted.way
        try:
            return orjson.dumps({**converted.body, **credentials.body})
        except orjson.JSONEncodeError:  # deeper than it writes, though it has read it
            raise Refused(BAD_REQUEST, "the request body is nested too deeply") from None

    def _converting(self, env: Env) -> Converting:
        case = self._case
        return Converting(
            asked=case.asked,
            provider=case.provider,
            endpoint=case.endpoint,
            call=case.call,
            counts_usage=case.counts,
            now=int(env.now),
            id=env.id,
            secrets=self.secrets,
        )

    def _conversion(self) -> Conversion:
        case = self._case
        if not speaks_openai(case.asked):
            betas = ",".join(case.request.headers.get("anthropic-beta", ()))
            return SameFormat(case.asked, case.call, case.endpoint, betas)
        if case.asked.route_type == openai.PRESERVE or not case.operation.model:
            return Untouched()
        return OpenAIToOpenAI(
            case.provider,
            case.model,
            case.asked.route_type,
            case.creates,
            case.rules.response_streaming == "always",
            case.counts and case.endpoint.usage_on_request,
            case.call,
            case.endpoint.change,
        )

    def _changed_body(
        self, changes: Changes, credentials: sign.Credentials
    ) -> bytes | BodyFilter | None:
        case = self._case
        members = {**changes.members, **credentials.body}
        if isinstance(case.content, Form):
            return self._changed_form(case.content, members, credentials)
        if credentials.body and (case.operation.any_body or case.content is None):
            raise Refused(
                SERVER_ERROR,
                f"auth.param_location 'body' cannot be used with route_type "
                f"'{case.target.route_type}' here: the body is left as it is",
            )
        if not members or case.content is None:
            return None
        try:
            openai.check_names(case.json, credentials.body)
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        return case.content.edited(members)

    def _changed_form(
        self, form: Form, members: Mapping[str, object], credentials: sign.Credentials
    ) -> bytes | BodyFilter:
        kept = frozenset(credentials.body if self._case.target.auth.allow_override else ())
        texts = {name: str(value) for name, value in members.items()}
        fields = FormFields(form.content_type, self._on_field, texts, kept=kept)
        if form.data is None:
            return fields
        return fields.feed(form.data) + fields.end()

    def _on_field(self, name: str, value: str) -> None:
        if name == "model" and value:
            self.requested = value
            self._check_requested(value)
        elif name == "stream" and not _is_no(value):
            self._refuse_stream_if_denied()


def _is_no(text: str) -> bool:
    """Whether every server takes this for false."""
    return text.strip().lower() in ("", "0", "false")


@lru_cache(maxsize=64)
def _takes_gzip(accepted: str | None) -> bool:
    return coding.accepts(accepted, "gzip")
