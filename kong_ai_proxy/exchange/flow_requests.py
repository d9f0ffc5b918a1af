"""The requests of a flow, and what a flow is told of the client's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from kong_ai_proxy.auth import sign
from kong_ai_proxy.auth.identity import Identity
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.config import Model
from kong_ai_proxy.exchange import cloud, privacy
from kong_ai_proxy.exchange.address import split_url
from kong_ai_proxy.exchange.conversion import OURS
from kong_ai_proxy.exchange.errors import BAD_REQUEST, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.form import Form
from kong_ai_proxy.exchange.keys import Keys, secrets_of
from kong_ai_proxy.exchange.messages import Address, ClientRequest, Env, UpstreamRequest
from kong_ai_proxy.exchange.subpath import Subpath
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import FormError, Part, parts_of
from kong_ai_proxy.providers.base import Call, Provider
from kong_ai_proxy.providers.flow import Send, Texts, Wanted

_NO_CREDENTIALS = sign.Credentials()
_RANGE = re.compile(r"bytes=[0-9, -]{2,100}")

# What of the client's head a provider is told: who asks, and what traces need.
_KEPT_HEADERS = frozenset({"traceparent", "tracestate", "user-agent", "x-request-id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRequests:
    """Makes requests of the steps of one flow."""

    provider: Provider
    model: Model
    request: ClientRequest
    keys: Keys
    identity: Identity | None

    def make(self, send: Send, env: Env) -> UpstreamRequest:
        """The request, signed. Raises Refused."""
        place = self._place(send)
        credentials = self.keys.credentials(env.credential) if send.is_own else _NO_CREDENTIALS
        if credentials.body:
            raise Refused(
                SERVER_ERROR,
                f"auth.param_location 'body' cannot be used with provider {self.provider.name} "
                "here: a request takes several calls",
            )
        query = privacy.joined(place.query, credentials.query)
        place = place._replace(query=query.rstrip("&"))
        body = send.body or b""
        headers = self._headers(send, credentials)
        if send.is_own:
            amz = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
            headers |= cloud.signature(
                self.identity, env, send.method, place, body, amz, send.service
            )
        return UpstreamRequest(
            method=send.method,
            address=place,
            set_headers=headers,
            drop_headers=frozenset(self.request.headers.keys() - _KEPT_HEADERS),
            body=body,
        )

    def _headers(self, send: Send, credentials: sign.Credentials) -> dict[str, str]:
        headers = {"accept": "*/*", "accept-encoding": "identity"}
        if send.body:
            headers["content-type"] = "application/json"
        own = self.provider.headers(self.model.options) if send.is_own else {}
        return {**headers, **own, **send.headers, **credentials.headers}

    def _place(self, send: Send) -> Address:
        """`upstream_url` is the origin, and what comes before the path, of every request that does
        not say another one itself."""
        url = send.base_url or self.model.options.upstream_url
        try:
            base = split_url(url or self.provider.base(self.model.options))
        except FormatError as error:  # a templated value would change the host
            raise Refused(BAD_REQUEST, str(error)) from None
        if not base.host:
            raise Refused(SERVER_ERROR, "must set 'model.options.upstream_url' for this provider")
        query = "&".join(part for part in (base.query, send.query) if part)
        return base._replace(path=base.path.rstrip("/") + send.path, query=query)


def secrets(keys: Keys, env: Env) -> tuple[str, ...]:
    """What must not be in an error."""
    return keys.secrets + secrets_of(env.credential)


def wanted(
    call: Call,
    request: ClientRequest,
    sub: Subpath,
    content: Mapping[str, object] | Form | None,
    env: Env,
    texts: Texts,
    provider: str,
) -> Wanted:
    """What the client wants of `provider`. Raises Refused (400) for a form that cannot be read, and
    for a path or a query that is not UTF-8."""
    fields: Mapping[str, object] = {}
    parts: tuple[Part, ...] = ()
    if isinstance(content, Form):
        if content.data is not None:
            fields, parts = _form(content.content_type, content.data)
    elif content is not None:
        fields = _with_extra(content)
    return Wanted(
        route_type=call.route_type,
        options=call.options,
        model=call.model,
        method=request.method,
        collection=sub.collection,
        rest=_segments(sub.rest),
        query=_checked(call.query),
        body=fields,
        parts=parts,
        content_type=request.header("content-type") or "",
        range=_range(request),
        id=env.id,
        now=env.now,
        texts=texts,
        provider=provider,
        signs=isinstance(env.credential, AwsCredentials),
    )


def _range(request: ClientRequest) -> str:
    """`If-Range` asks for all of what has changed, and nobody here is told what that is: no ETag
    goes to the client."""
    given = request.header("range") or ""
    return given if _RANGE.fullmatch(given) and not request.header("if-range") else ""


def _segments(rest: str) -> tuple[str, ...]:
    try:
        return tuple(unquote(each, errors="strict") for each in rest.split("/") if each)
    except UnicodeDecodeError:
        raise Refused(BAD_REQUEST, "path: expected UTF-8, percent-encoded") from None


def _checked(query: Mapping[str, str]) -> Mapping[str, str]:
    try:
        "".join([*query, *query.values()]).encode()
    except UnicodeEncodeError:
        raise Refused(BAD_REQUEST, "query: expected UTF-8, percent-encoded") from None
    return query


def _with_extra(body: Mapping[str, object]) -> Mapping[str, object]:
    """`extra_body` holds members that a client's library does not know. None of them may get past
    a rule."""
    extra = body.get("extra_body")
    if not isinstance(extra, dict):
        return body
    try:
        openai.check_names(extra)
    except FormatError as error:
        raise Refused(BAD_REQUEST, f"extra_body: {error}") from None
    added = {name: value for name, value in extra.items() if name not in OURS}
    return {**added, **{name: value for name, value in body.items() if name != "extra_body"}}


def _form(content_type: str, data: bytes) -> tuple[dict[str, object], tuple[Part, ...]]:
    """The plain fields by name, and all parts. A field that ends with [] may occur several times:
    the parts tell."""
    try:
        parts = parts_of(content_type, data)
    except FormError as error:
        raise Refused(BAD_REQUEST, f"multipart body: {error}") from None
    fields: dict[str, object] = {}
    for part in parts:
        if part.filename is not None:
            continue
        if part.name in fields and not part.name.endswith("[]"):
            message = f"multipart body: the field {part.name!r} occurs twice"
            if "[]" in part.name:  # OpenAI's client writes arrays of objects so
                message += "; give an array of objects as JSON text"
            raise Refused(BAD_REQUEST, message)
        try:
            fields[part.name] = part.content.decode()
        except UnicodeDecodeError:
            message = f"multipart body: the field {part.name!r} is not UTF-8"
            raise Refused(BAD_REQUEST, message) from None
    return fields, parts
