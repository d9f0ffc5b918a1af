"""A configuration made ready: what does not depend on a request is worked out once."""

from __future__ import annotations

from kong_ai_proxy.balancer.select import UnknownModelError, candidates
from kong_ai_proxy.config import Config, Target
from kong_ai_proxy.config.pending import pending
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
        self._route_types = {target.route_type for target in config.targets}

    @property
    def uses_captures(self) -> bool:
        """Whether the named captures of the route's path are needed."""
        return any("uri_captures" in t.sources for t in self._templates.values())

    @property
    def may_read_body(self) -> bool:
        """Whether a request's body may have to be read at all."""
        return self._route_types != {openai.PRESERVE} or self._names_models

    @property
    def _names_models(self) -> bool:
        return any(target.model.name for target in self._config.targets)

    @property
    def max_body(self) -> int:
        """The largest body that is read, in bytes; 0: any."""
        return self._config.max_request_body_size

    def check_available(self) -> None:
        """Raise Refused (500) for a configuration that this version cannot serve."""
        if self._pending:
            raise Refused(
                SERVER_ERROR,
                "; ".join(self._pending),
            )

    def needs_body(self, request: ClientRequest) -> bool:
        """Whether this request's body must be read. Raises Refused by what its head says."""
        if self._route_types & openai.JSON_ROUTE_TYPES:
            self._check_head(request)
            needed = True
        else:
            needed = self._names_models and request.has_body and _is_json(request)
        if needed:
            self._check_length(int(_content_length(request)))
        return needed

    def _check_head(self, request: ClientRequest) -> None:
        if not request.has_body and request.method != "POST":
            raise Refused(
                METHOD_NOT_ALLOWED,
                f"{request.method} without a body: expected POST with a JSON body",
                {"allow": "POST"},
            )
        if request.has_body and not _is_json(request):
            raise Refused(
                UNSUPPORTED_MEDIA_TYPE,
                "expected an uncompressed body with content-type: application/json",
            )

    def _check_length(self, length: int) -> None:
        if self.max_body and length > self.max_body:
            raise too_large()

    def attempt(self, request: ClientRequest, body: bytes | None) -> Attempt:
        """The attempt for this request. `body` is what `needs_body` asked for. Raises Refused."""
        if body is not None:
            self._check_length(len(body))
        try:
            parsed = JsonObject(body) if body is not None else None
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

    def _target(self, body: JsonObject | None) -> Target:
        requested = openai.requested_model(body.value) if body else None
        found = candidates(self._config.targets, requested)
        if len(found) > 1:
            raise Refused(
                SERVER_ERROR,
                f"{len(found)} targets for this request: balancing between targets is not "
                "available in this version of kong-ai-proxy; give each a model_alias of its own",
            )
        return found[0]


def too_large() -> Refused:
    """The refusal of a body over `max_request_body_size`."""
    return Refused(CONTENT_TOO_LARGE, "Request body too large")


def _content_length(request: ClientRequest) -> str:
    length = (request.header("content-length") or "0").strip()
    return length if length.isascii() and length.isdigit() else "0"


def _is_json(request: ClientRequest) -> bool:
    """Absent counts as JSON, as Kong has it; a compressed body is not read."""
    media_type = (request.header("content-type") or "application/json").partition(";")[0]
    media_type = media_type.strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    return is_json and (request.header("content-encoding") or "identity").lower() == "identity"
