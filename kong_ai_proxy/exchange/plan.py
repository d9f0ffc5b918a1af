"""A configuration made ready: what does not depend on a request is worked out once."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Mapping

from kong_ai_proxy.auth import sign
from kong_ai_proxy.balancer.select import UnknownModelError, candidates, share_requests
from kong_ai_proxy.config import AiProxyAdvanced, Config, Model, Target
from kong_ai_proxy.config.vectors import Vectordb, missing_library
from kong_ai_proxy.exchange import (
    acls,
    asking,
    client_errors,
    cloud,
    head,
    led_back,
    made_here,
    privacy,
)
from kong_ai_proxy.exchange.ask import Ask
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.case import Content, Rules
from kong_ai_proxy.exchange.endpoints import asked_as
from kong_ai_proxy.exchange.errors import (
    BAD_REQUEST,
    CONTENT_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    SERVER_ERROR,
    UNSUPPORTED_MEDIA_TYPE,
    UPGRADE_REQUIRED,
    Refused,
)
from kong_ai_proxy.exchange.form import Form
from kong_ai_proxy.exchange.hold import NO_TRIAL, Trial
from kong_ai_proxy.exchange.messages import NOTHING, ClientRequest
from kong_ai_proxy.exchange.templates import ModelTemplate
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import JsonError, JsonObject
from kong_ai_proxy.providers.base import Call
from kong_ai_proxy.providers.flow import Flow
from kong_ai_proxy.providers.registry import PROVIDERS

_CRUD_METHODS = ("DELETE", "GET", "HEAD", "POST")


class Body(enum.Enum):
    """What has to be done with a request's body."""

    PASS = enum.auto()
    """Nothing: it goes on as it comes, if there is one."""
    READ = enum.auto()
    """It is read whole, at most `Plan.max_body`."""
    WATCH = enum.auto()
    """A form whose fields are looked at while it passes, which only the relay can."""
    TAKE = enum.auto()
    """A form that is taken apart while it comes, which only the relay can."""


class Plan:
    """What one plugin configuration does with a request."""

    def __init__(
        self,
        config: Config,
        plugin_id: str | None = None,
        environ: Mapping[str, str] = NOTHING,
    ) -> None:
        """`plugin_id` is Kong's, for logs; `environ` may hold a cloud's region and credentials."""
        self.config = config
        self.plugin_id = plugin_id
        self._environ = environ
        self._is_native = config.llm_format != "openai"
        self._rules = Rules(config.response_streaming, config.model_name_header)
        self._templates = {id(target): ModelTemplate(target.model) for target in config.targets}
        route_types: set[str] = {target.route_type for target in config.targets}
        operations = [openai.OPERATIONS[route_type] for route_type in route_types]
        self._is_websocket = all(operation.websocket for operation in operations)
        # Its paths say what is asked for, with any method.
        native = self._is_native and not self._is_websocket
        self._takes_json = native or any(operation.json for operation in operations)
        self._takes_form = not native and any(operation.form for operation in operations)
        self._takes_any = not native and all(operation.any_body for operation in operations)
        self._is_crud = native or all(operation.collections for operation in operations)
        self._has_rules = _has_rules(config)
        self._form = _form_body(config)
        self.balances = share_requests(config.targets) or _has_breaker(config)
        """Whether every request may need more than one target, or has to be watched how it fares.
        A request that names no model may need it all the same."""
        self.needs_response = self.balances or any(map(self._needs_response, config.targets))
        """Whether every answer has to be read or converted, or a request signed, so that the relay
        carries every request."""
        self.prefers_relay = self.needs_response or any(map(_has_secret_query, config.targets))
        """Whether the relay carries every request where there is one. nginx writes the whole URL
        of a request that fails into its error log, a key in the query with it."""
        self.reads_body = self._reads_body(route_types)
        """Whether a body, if there is one, is read whole. False also where that depends on it."""
        self._vectordb = _compared_in(config)
        self._access = acls.of(config)
        rules = acls.kinds(config)
        self.uses_consumer = bool(rules & acls.OF_CONSUMER)
        """Whether it decides who the consumer is."""
        self.uses_groups = "consumer_group" in rules
        """Whether it decides in which consumer groups the consumer is."""
        self.uses_address = "ip" in rules
        """Whether it decides where the client connects from."""
        self.uses_path = "path" in rules or (
            self._is_native or self._takes_any or any(op.collections for op in operations)
        )
        """Whether the client's path is needed: other route types have the provider's."""
        self.uses_route = any(op.collections for op in operations)
        """Whether the route's own path may be needed."""
        templates = self._templates.values()
        self.uses_captures = self._is_native or any("uri_captures" in t.sources for t in templates)
        """Whether the named captures of the route's path are needed."""

    def _needs_response(self, target: Target) -> bool:
        has_identity = cloud.uses_identity(target.model, target.auth)
        return _logs(target) or self._converts(target) or has_identity

    def _converts(self, target: Target) -> bool:
        """Whether an answer may change its format. Where that depends on the model, it may."""
        provider = PROVIDERS[target.model.provider].find(target.model.options)
        if self._is_native and self._is_websocket:  # its first message is looked at
            own = target.model
            return bool(own.name or own.model_alias or own.options.gemini.project_id)
        if self._is_native:
            return provider.natives.isdisjoint({self.config.llm_format}) or bool(provider.endpoints)
        if asked_as(provider, target.route_type) != target.route_type:
            return True
        if target.route_type in provider.flows:
            return True
        if target.route_type == openai.CHAT and (
            provider.answers_loosely or provider.tells_usage_unasked
        ):
            return True
        if target.route_type not in provider.endpoints or provider.endpoint is None:
            return target.route_type in provider.codecs
        name = target.model.name or ""
        call = Call(target.route_type, name, target.model.options, name)
        try:
            found = provider.endpoint(call)
        except FormatError:  # placeholders that only a request fills in
            return True
        usual = asking.OPENAI_CODECS.get(target.route_type)
        return found.flow is not None or (found.codec is not None and found.codec is not usual)

    def _reads_body(self, route_types: set[str]) -> bool:
        if self._is_websocket:
            return False
        if self._is_native:
            return True
        if self._takes_form:
            return False
        if self._takes_any:
            return self._has_rules
        known = any(openai.OPERATIONS[route_type].always_read for route_type in route_types)
        has_defaults = bool(route_types & openai.TEXT_ROUTE_TYPES)
        return known or has_defaults or self._has_rules or self.needs_response

    @property
    def max_body(self) -> int:
        """The largest body that is read, in bytes; 0: any."""
        return self.config.max_request_body_size

    @property
    def timeouts(self) -> tuple[float, float, float] | None:
        """Seconds to connect, to write and to read a piece; None where the Service has them."""
        if not isinstance(self.config, AiProxyAdvanced):
            return None
        own = self.config.balancer
        return own.connect_timeout / 1000, own.write_timeout / 1000, own.read_timeout / 1000

    def answer(self, refused: Refused) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an answer of our own, in the client's format."""
        return client_errors.refusal(self.config.llm_format, refused)

    def check_available(self) -> None:
        """Raise Refused (500) for a configuration that cannot be served with what is installed."""
        if self._vectordb and (missing := missing_library(self._vectordb)):
            raise Refused(SERVER_ERROR, missing)
        for target in self.config.targets:
            if not self._templates[id(target)].sources:
                cloud.check_extra(target.model, target.auth, self._environ)

    def _resolved(self, target: Target, request: ClientRequest) -> Model:
        """The target's model for this request, with the region of the environment."""
        return cloud.with_region(self._templates[id(target)].resolve(request), self._environ)

    def check_head(self, request: ClientRequest) -> None:
        """Raise Refused for a request whose head is reason enough."""
        head.check(request)
        if self._takes_any and not self._has_rules:
            return
        upgrades = head.asks_upgrade(request)
        if self._is_websocket:
            _check_handshake(request, upgrades)
        elif upgrades:
            raise Refused(BAD_REQUEST, "expected a plain request: no Upgrade on this route")
        elif self._is_crud:
            if request.method not in _CRUD_METHODS:
                raise _not_allowed(request.method, _CRUD_METHODS)
        elif not self._takes_any and request.method == "HEAD":
            raise self._no_body(request.method)
        if request.has_body:
            self._check_content(request)

    def _check_content(self, request: ClientRequest) -> None:
        if self._is_websocket:
            raise Refused(BAD_REQUEST, "expected a WebSocket handshake without a body")
        if not self._fits(request):
            raise Refused(UNSUPPORTED_MEDIA_TYPE, self._expected())
        if self.body(request) is Body.READ:
            self._check_length(head.content_length(request))

    def _fits(self, request: ClientRequest) -> bool:
        if self._takes_form and head.is_form(request):
            return not (head.is_encoded(request) and self._form is not Body.PASS)
        if self._is_native and led_back.is_upload(self.config.llm_format, request):
            return True
        return (self._takes_json or self._takes_any) and head.is_json(request)

    def _expected(self) -> str:
        forms = [
            "content-type: application/json" if self._takes_json or self._takes_any else "",
            "content-type: multipart/form-data" if self._takes_form else "",
        ]
        text = "expected an uncompressed body in UTF-8 with " + " or ".join(filter(None, forms))
        return "; ".join(dict.fromkeys(filter(None, (text, *map(_no_form, self.config.targets)))))

    def _check_length(self, length: int) -> None:
        if self.max_body and length > self.max_body:
            raise too_large()

    def body(self, request: ClientRequest) -> Body:
        """What has to be done with the body of this request, whose head is in order."""
        if self._is_websocket:
            return Body.PASS
        if self._takes_form and head.is_form(request):
            return self._form
        if self._is_native and led_back.is_upload(self.config.llm_format, request):
            return Body.PASS
        if self.reads_body:
            return Body.READ
        needed = self._has_rules or self.needs_response
        return Body.READ if self._takes_json and needed and request.has_body else Body.PASS

    def needs_relay(self, request: ClientRequest) -> bool:
        """Whether Kong alone cannot carry this request, whose head is in order."""
        form = self._takes_form and head.is_form(request)
        if self._is_native and led_back.tells_results(self.config.llm_format, request.path):
            return True
        return self.needs_response or (form and self._form is not Body.PASS)

    def ask(self, request: ClientRequest, body: bytes | None) -> Ask:
        """What this request asks for, and of whom; `body` is None unless it had to be read. Raises
        Refused."""
        try:
            content = self._content(request, body)
            native = self._native(request, content)
            if native is not None and native.codec is not None and content is None:
                raise self._no_body(request.method)
            requested = self._requested(request, content, native)
            found = candidates(self.config.targets, requested)
            found = self._permitted(request, requested, found) if self._access.restricts else found
            if native is None:  # else it names what the provider itself has named
                found = made_here.makers(self.config.targets, request, content, found)
        except (FormatError, JsonError, UnknownModelError) as error:
            raise _bad_request(error) from None
        asked = native or asking.in_openai_format(self.config.targets[found[0]].route_type)
        return Ask(request, content, native, asked, found)

    def _permitted(
        self, request: ClientRequest, requested: str | None, found: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The targets that this client may use. Raises Refused (403) where it may use none."""
        permits, targets = self._access.of(request), self.config.targets
        permitted: list[int] = []
        unknown: Refused | None = None
        for index in found:
            try:
                model = self._named(targets[index], request) or requested
            except Refused as refused:  # a placeholder of its own: another target may do
                unknown = unknown or refused
                continue
            if permits(targets[index], model):
                permitted.append(index)
        if not permitted:
            raise unknown or acls.refusal()
        return tuple(permitted)

    def _named(self, target: Target, request: ClientRequest) -> str | None:
        """The target's model for this request. Raises Refused."""
        name = target.model.name
        return self._resolved(target, request).name if name and "$(" in name else name

    def attempt(
        self, request: ClientRequest, body: bytes | None, *, relayed: bool = False
    ) -> Attempt:
        """The attempt for a request that only one target can answer. Raises Refused."""
        return self.attempt_at(self.ask(request, body), relayed=relayed)

    def attempt_at(
        self, ask: Ask, index: int | None = None, *, relayed: bool = False, trial: Trial = NO_TRIAL
    ) -> Attempt:
        """A new attempt at one of the request's candidates, by default the first. Raises
        Refused."""
        target = self.config.targets[ask.candidates[0] if index is None else index]
        native, request = ask.native, ask.request
        try:
            if isinstance(ask.content, JsonObject) and native is None:
                openai.check_shape(ask.content.value, target.route_type)
            model = self._resolved(target, request)
            return Attempt(
                target,
                model,
                self._rules,
                request,
                ask.content,
                native or asking.in_openai_format(target.route_type),
                identity=cloud.identity_of(model, target.auth, self._environ),
                relayed=relayed,
                trial=trial,
            )
        except (FormatError, JsonError) as error:
            raise _bad_request(error) from None

    def _content(self, request: ClientRequest, body: bytes | None) -> Content:
        """HTTP/2 need not announce a body, so what the head said is looked at again."""
        if body is None:
            watched = self.body(request) is Body.WATCH
            return Form(request.header("content-type") or "") if watched else None
        self._check_length(len(body))
        if not body and (self._is_crud or self._takes_any):
            return None
        if not body and request.method != "POST":
            raise self._no_body(request.method)
        if body and not self._fits(request):
            raise Refused(UNSUPPORTED_MEDIA_TYPE, self._expected())
        if self._takes_form and head.is_form(request):
            return Form(request.header("content-type") or "", body)
        parsed = JsonObject(body)
        openai.check_names(parsed.value)
        return parsed

    def _no_body(self, method: str) -> Refused:
        kind = "JSON" if self._takes_json else "multipart/form-data"
        message = f"{method} without a body: expected POST with a {kind} body"
        return Refused(METHOD_NOT_ALLOWED, message, {"allow": "POST"})

    def _native(self, request: ClientRequest, content: Content) -> Asked | None:
        if not self._is_native:
            return None
        if self._is_websocket:
            return asking.native_session(self.config.llm_format, request)
        body = content.value if isinstance(content, JsonObject) else {}
        return asking.in_native_format(self.config.llm_format, request, body)

    def _requested(
        self, request: ClientRequest, content: Content, native: Asked | None
    ) -> str | None:
        if native is not None and native.model:
            return native.model
        if isinstance(content, JsonObject):
            return openai.requested_model(content.value)
        if isinstance(content, Form):
            return content.model() if content.data is not None else None
        if self._is_websocket:
            return privacy.query_values(request.query).get("model") or None
        return None


def _bad_request(error: ValueError) -> Refused:
    if isinstance(error, JsonError):
        return Refused(BAD_REQUEST, f"request body doesn't contain valid prompts: {error}")
    return Refused(BAD_REQUEST, str(error))


def too_large() -> Refused:
    """The refusal of a body over `max_request_body_size`."""
    return Refused(CONTENT_TOO_LARGE, "Request body too large")


def _has_rules(config: Config) -> bool:
    """Whether something in a JSON body decides or has to change."""
    named = [t for t in config.targets if openai.OPERATIONS[t.route_type].model]
    names = (target.model.name or target.model.model_alias for target in named)
    return (
        any(names)
        or config.response_streaming == "deny"
        or acls.looks_for_model(config)
        or any(map(_body_auth, config.targets))
        or any(map(_names_model, config.targets))
    )


def _form_body(config: Config) -> Body:
    """What is done with a form."""
    flows = [_flow(target) for target in config.targets]
    if any(flow is not None and not flow.takes_body for flow in flows):
        return Body.READ
    if any(flow is not None for flow in flows):
        return Body.TAKE
    if not _form_rules(config):
        return Body.PASS
    alone = len(config.targets) == 1 and not acls.looks_for_model(config)
    return Body.WATCH if alone else Body.READ


def _flow(target: Target) -> Flow | None:
    """The flow that the target's route type is, or may be."""
    provider = PROVIDERS[target.model.provider].find(target.model.options)
    if target.route_type in provider.flows:
        return provider.flows[target.route_type]
    if target.route_type not in provider.endpoints or provider.endpoint is None:
        return None
    name = target.model.name or ""
    call = Call(target.route_type, name, target.model.options, name)
    with contextlib.suppress(FormatError):  # placeholders that only a request fills in
        return provider.endpoint(call).flow
    return None


def _form_rules(config: Config) -> bool:
    """Whether something in a form decides or has to change."""
    with_model = [t for t in config.targets if openai.OPERATIONS[t.route_type].model]
    wants = any(t.model.name or t.model.model_alias or _logs(t) for t in with_model)
    wants = wants or (bool(with_model) and acls.looks_for_model(config))
    denies = bool(with_model) and config.response_streaming == "deny"
    return (
        wants
        or denies
        or any(map(_body_auth, config.targets))
        or any(map(_names_model, config.targets))
    )


def _compared_in(config: Config) -> Vectordb | None:
    """The database that semantic balancing needs."""
    if not isinstance(config, AiProxyAdvanced) or config.balancer.algorithm != "semantic":
        return None
    return config.vectordb


def _has_breaker(config: Config) -> bool:
    return isinstance(config, AiProxyAdvanced) and config.balancer.max_fails > 0


def _names_model(target: Target) -> bool:
    """Whether the provider's row has to name the model in the body."""
    provider = PROVIDERS[target.model.provider].find(target.model.options)
    return target.route_type in provider.names_model


def _no_form(target: Target) -> str:
    """What a provider says of forms where it takes none."""
    provider = PROVIDERS[target.model.provider].find(target.model.options)
    flow = provider.flows.get(target.route_type)
    return flow.no_form if flow else ""


def _body_auth(target: Target) -> bool:
    return bool(target.auth.param_name) and target.auth.param_location == "body"


def _logs(target: Target) -> bool:
    return target.logging.log_statistics or target.logging.log_payloads


def _has_secret_query(target: Target) -> bool:
    """Whether a credential goes into the URL."""
    url = target.model.options.upstream_url or ""
    named = privacy.query_values(url.partition("?")[2]).keys() & privacy.CREDENTIAL_QUERY
    in_query = bool(target.auth.param_name) and target.auth.param_location == "query"
    return bool(named) or (in_query and sign.is_configured(target.auth))


def _check_handshake(request: ClientRequest, upgrades: bool) -> None:
    """RFC 6455 section 4.1."""
    if request.method != "GET":
        raise _not_allowed(request.method, ("GET",))
    if not upgrades or (request.header("upgrade") or "").lower() != "websocket":
        raise Refused(UPGRADE_REQUIRED, "expected a WebSocket handshake", {"upgrade": "websocket"})


def _not_allowed(method: str, allowed: tuple[str, ...]) -> Refused:
    expected = ", ".join(allowed)
    return Refused(METHOD_NOT_ALLOWED, f"{method}: expected {expected}", {"allow": expected})
