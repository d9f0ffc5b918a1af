"""A configuration made ready: what does not depend on a request is worked out once."""

from __future__ import annotations

from kong_ai_proxy.balancer.select import UnknownModelError, candidates
from kong_ai_proxy.config import Config, Target
from kong_ai_proxy.config.pending import pending
from kong_ai_proxy.exchange import head
from kong_ai_proxy.exchange.attempt import Attempt, Rules
from kong_ai_proxy.exchange.errors import (
    BAD_REQUEST,
    CONTENT_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    SERVER_ERROR,
    UNSUPPORTED_MEDIA_TYPE,
    Refused,
)
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.templates import ModelTemplate
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import JsonError, JsonObject


class Plan:
    """What one plugin configuration does with a request."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pending = pending(config)
        self._rules = Rules(config.response_streaming, config.model_name_header)
        self._templates = {id(target): ModelTemplate(target.model) for target in config.targets}
        route_types = {target.route_type for target in config.targets}
        self._is_json_only = bool(route_types & openai.JSON_ROUTE_TYPES)
        self.reads_body = route_types != {openai.PRESERVE} or _has_rules(config)
        """Whether bodies are read: route type `preserve` alone needs that only for a rule."""
        self.uses_path = openai.PRESERVE in route_types
        """Whether the client's path is needed: other route types have the provider's."""
        self.uses_captures = any("uri_captures" in t.sources for t in self._templates.values())
        """Whether the named captures of the route's path are needed."""

    @property
    def max_body(self) -> int:
        """The largest body that is read, in bytes; 0: any."""
        return self._config.max_request_body_size

    def check_available(self) -> None:
        """Raise Refused (500) for a configuration that this version cannot serve."""
        if self._pending:
            raise Refused(SERVER_ERROR, "; ".join(self._pending))

    def check_head(self, request: ClientRequest) -> None:
        """Raise Refused for a request whose head is reason enough."""
        head.check(request)
        if not self.reads_body:
            return
        if head.asks_upgrade(request):
            raise Refused(BAD_REQUEST, "expected a plain request: no Upgrade on this route")
        if self._is_json_only and request.method == "HEAD":
            raise _no_body(request.method)
        if request.has_body and not head.is_json(request):
            raise _not_json()
        self._check_length(head.content_length(request))

    def _check_length(self, length: int) -> None:
        if self.max_body and length > self.max_body:
            raise too_large()

    def attempt(self, request: ClientRequest, body: bytes | None) -> Attempt:
        """The attempt for this request; `body` is None unless `reads_body`. Raises Refused."""
        try:
            parsed = self._parsed(request, body) if body is not None else None
            target = self._target(parsed)
            if parsed and target.route_type in openai.JSON_ROUTE_TYPES:
                openai.check_shape(parsed.value, target.route_type)
            model = self._templates[id(target)].resolve(request)
            return Attempt(target, model, self._rules, request, parsed)
        except JsonError as error:
            raise Refused(
                BAD_REQUEST, f"request body doesn't contain valid prompts: {error}"
            ) from None
        except (openai.FormatError, UnknownModelError) as error:
            raise Refused(BAD_REQUEST, str(error)) from None

    def _parsed(self, request: ClientRequest, body: bytes) -> JsonObject | None:
        """HTTP/2 need not announce a body, so what the head said is looked at again."""
        self._check_length(len(body))
        if not body and not self._is_json_only:
            return None
        if not body and request.method != "POST":
            raise _no_body(request.method)
        if body and not head.is_json(request):
            raise _not_json()
        parsed = JsonObject(body)
        openai.check_names(parsed.value)
        return parsed

    def _target(self, body: JsonObject | None) -> Target:
        requested = openai.requested_model(body.value) if body else None
        found = candidates(self._config.targets, requested)
        if len(found) > 1:
            raise Refused(
                SERVER_ERROR,
                f"{len(found)} targets for this request: balancing between targets is not "
                "available in this version of kong-ai-proxy; choose one by its model_alias in the "
                "request's 'model'",
            )
        return found[0]


def too_large() -> Refused:
    """The refusal of a body over `max_request_body_size`."""
    return Refused(CONTENT_TOO_LARGE, "Request body too large")


def _has_rules(config: Config) -> bool:
    names = (target.model.name or target.model.model_alias for target in config.targets)
    return any(names) or config.response_streaming == "deny"


def _no_body(method: str) -> Refused:
    message = f"{method} without a body: expected POST with a JSON body"
    return Refused(METHOD_NOT_ALLOWED, message, {"allow": "POST"})


def _not_json() -> Refused:
    return Refused(
        UNSUPPORTED_MEDIA_TYPE,
        "expected an uncompressed body in UTF-8 with content-type: application/json",
    )
