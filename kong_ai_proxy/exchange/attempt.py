"""One client request x one target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import orjson

from kong_ai_proxy.auth import sign
from kong_ai_proxy.auth.identity import AwsIdentity, Identity
from kong_ai_proxy.config import Model, Target
from kong_ai_proxy.exchange import (
    added_headers,
    answer,
    client_errors,
    cloud,
    flow_requests,
    head,
    model_rules,
    privacy,
)
from kong_ai_proxy.exchange.address import address
from kong_ai_proxy.exchange.answering import (
    Answering,
    chats_in_openai,
    leads_to_results,
    speaks_openai,
)
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.conversion import (
    Changes,
    Conversion,
    OpenAIToOpenAI,
    SameFormat,
    Untouched,
)
from kong_ai_proxy.exchange.converting import Converting
from kong_ai_proxy.exchange.endpoints import asked_as, check_keeps_nothing, endpoint
from kong_ai_proxy.exchange.errors import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    OK,
    SERVER_ERROR,
    Refused,
)
from kong_ai_proxy.exchange.flow_requests import FlowRequests
from kong_ai_proxy.exchange.flowing import Flowing
from kong_ai_proxy.exchange.form import Form, FormFields
from kong_ai_proxy.exchange.hold import NO_TRIAL, Hold, Trial
from kong_ai_proxy.exchange.keys import Keys, secrets_of
from kong_ai_proxy.exchange.led_back import LedBack
from kong_ai_proxy.exchange.messages import (
    NO_ENV,
    NOTHING,
    Action,
    Address,
    BodyFilter,
    ClientRequest,
    Env,
    Event,
    Fail,
    Head,
    Lost,
    Received,
    ResponseHead,
    UpstreamRequest,
    Woken,
)
from kong_ai_proxy.exchange.outcome import RequestMode
from kong_ai_proxy.exchange.reading import Known, realtime
from kong_ai_proxy.exchange.realtime_reading import SessionReading
from kong_ai_proxy.exchange.subpath import Subpath, subpath
from kong_ai_proxy.exchange.texts import BatchTexts
from kong_ai_proxy.exchange.translation import TranslatedAnswer, Way
from kong_ai_proxy.formats import coding, openai
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.json_object import REMOVED, JsonObject
from kong_ai_proxy.formats.usage import Usage
from kong_ai_proxy.providers.base import Call
from kong_ai_proxy.providers.flow import Send
from kong_ai_proxy.providers.registry import PROVIDERS

_BETA_PROTOCOL = "openai-beta.realtime-v1"
Content = JsonObject | Form | None
"""The request's body as far as it is looked at."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about every request, whichever target it goes to."""

    response_streaming: str
    model_name_header: bool


class Attempt:
    """One frozen client request x one target; never used twice, so nothing leaks into the next.

    `start` gives the request to the provider. Where Kong carries it that is all; the relay goes on
    with `feed`.
    """

    def __init__(
        self,
        target: Target,
        model: Model,
        rules: Rules,
        request: ClientRequest,
        content: Content,
        asked: Asked,
        *,
        identity: Identity | None = None,
        relayed: bool = False,
        trial: Trial = NO_TRIAL,
    ) -> None:
        """`model` is the target's with its templates expanded, `identity` as whom a cloud is
        called. Raises Refused."""
        self.target = target
        self.model = model
        self.identity = identity
        self.relayed = relayed
        self.answer: answer.Answer | TranslatedAnswer | Flowing | LedBack | None = None
        self.answered: ResponseHead | None = None
        """The head of the provider's answer; of several calls the last one's."""
        self._trial = trial
        is_json = asked.codec is not None
        self._hold = Hold(trial, self._told, is_json=is_json) if trial is not NO_TRIAL else None
        self._realtime: SessionReading | None = None
        self._rules = rules
        self._request = request
        self._content = content
        self._asked = asked
        self._json = content.value if isinstance(content, JsonObject) else {}
        self._operation = openai.OPERATIONS[asked.operation]
        self._provider = PROVIDERS[model.provider].find(model.options)
        self._keys = Keys(target.auth, request, self._json, has_identity=identity is not None)
        self._sub = self._subpath()
        self._requested = self._first_requested()
        self._call = self._make_call()
        if self._is_asked_otherwise:
            check_keeps_nothing(self._provider, request, self._sub)
        self._endpoint = endpoint(self._provider, self._call, asked)
        self._setup = self._make_setup()
        self._dropped: tuple[str, ...] = ()
        self._asks_for_usage = False
        self._way: Way | None = None
        self._place: Address | None = None
        self._flow_requests: FlowRequests | None = None
        self._texts: BatchTexts | None = None
        self._secrets = self._keys.secrets

    def _subpath(self) -> Subpath:
        if not self._operation.collections:
            return Subpath("", "")
        flow = self._provider.flows.get(self._asked.route_type)
        more = flow.collections if flow else ()
        return subpath(self._request, more or self._operation.collections)

    def _make_call(self) -> Call:
        return Call(
            route_type=asked_as(self._provider, self._asked.route_type),
            model=self.model.name or self._requested or "",
            options=self.model.options,
            named=self.model.name or "",
            stream=self._streams(),
            client=self._asked.client,
            creates=self._creates,
            query=self._plain_query(),
            betas=self._betas(),
        )

    def _make_setup(self) -> live.Setup | None:
        called = self._endpoint.session_model
        if called is None:
            return None
        return live.Setup(called, self.model.name, self.model.model_alias)

    def _plain_query(self) -> Mapping[str, str]:
        """The client's, without credentials."""
        query = self._request.query
        if not query:
            return NOTHING
        return privacy.query_values(privacy.without(query, privacy.CREDENTIAL_QUERY))

    def _betas(self) -> frozenset[str]:
        """Browsers, which send no header of their own with a handshake, offer a subprotocol."""
        offered = head.values(self._request, "sec-websocket-protocol") & {_BETA_PROTOCOL}
        return head.values(self._request, "openai-beta") | ({"realtime=v1"} if offered else set())

    def _streams(self) -> bool:
        if self._asked.stream is not None:
            return self._asked.stream
        return openai.wants_stream(self._json) or self._rules.response_streaming == "always"

    @property
    def _is_asked_otherwise(self) -> bool:
        """Whether the provider is asked for a conversation, not for the client's route type."""
        return self._call.route_type != self._asked.route_type

    @property
    def _converts(self) -> bool:
        """Whether client and provider speak different formats."""
        client, provider = self._asked.codec, self._endpoint.codec
        if client is None or provider is None or self._is_carried:
            return False
        return client.name != provider.name

    @property
    def _is_rewritten(self) -> bool:
        """Whether the provider's answer is OpenAI's but for what its clients rely on."""
        return chats_in_openai(self._asked) and self._provider.answers_loosely

    @property
    def _is_carried(self) -> bool:
        """Whether the provider's format is the client's in an envelope."""
        carried = getattr(self._endpoint.codec, "carries", None)
        return carried is not None and carried is self._asked.codec

    def _conversion(self) -> Conversion:
        if not speaks_openai(self._asked):
            betas = ",".join(self._request.headers.get("anthropic-beta", ()))
            return SameFormat(self._asked, self._call, self._endpoint, betas)
        if self._asked.route_type == openai.PRESERVE or not self._operation.model:
            return Untouched()
        return OpenAIToOpenAI(
            self._provider,
            self.model,
            self._asked.route_type,
            self._creates,
            self._rules.response_streaming == "always",
            self._counts,
            self._call,
            self._endpoint.change,
        )

    @property
    def _counts(self) -> bool:
        """Whether somebody wants to know the usage."""
        return self.relayed and (self.target.logging.log_statistics or self._trial.counts)

    @property
    def _creates(self) -> bool:
        """Whether the request makes a new object, or an answer, of a model."""
        if not self._operation.collections:
            return True
        first = self._operation.collections[0]
        return self._request.method == "POST" and self._sub == Subpath(first, "")

    # ---- a request that takes several calls

    @property
    def is_over(self) -> bool:
        """Whether a flow has come to its end."""
        return isinstance(self.answer, Flowing) and self.answer.is_over

    def broken(self, refused: Refused) -> Iterator[Action]:
        """What a flow does when the client's body breaks off while it takes it."""
        assert isinstance(self.answer, Flowing)
        return self.answer.broken(refused)

    def abandon(self) -> Iterator[Action]:
        """What a flow still does when nobody waits for it."""
        return self.answer.abandon() if isinstance(self.answer, Flowing) else iter(())

    @property
    def is_flow(self) -> bool:
        """Whether it takes several calls: then `begin` and `feed` say which, and `request` makes
        them."""
        return self._endpoint.flow is not None

    def begin(self, env: Env) -> Iterator[Action]:
        """What a flow does first. Raises Refused."""
        flow = self._endpoint.flow
        assert flow is not None
        if self._request.method == "HEAD":
            allowed = {"allow": "DELETE, GET, POST"}
            raise Refused(METHOD_NOT_ALLOWED, "HEAD: expected GET, POST or DELETE", allowed)
        self._check_model()
        self._check_streaming()
        self._flow_requests = FlowRequests(
            provider=self._provider,
            model=self.model,
            request=self._request,
            keys=self._keys,
            identity=self.identity,
        )
        texts = self._texts = BatchTexts(
            provider=self._provider, model=self.model, now=int(env.now), id=env.id
        )
        content = self._content
        wanted = flow_requests.wanted(
            self._call,
            self._request,
            self._sub,
            content.value if isinstance(content, JsonObject) else content,
            env,
            texts,
            self._provider.name,
        )
        self.answer = Flowing(
            flow.run(wanted),
            self._added_to_flow,
            self._answering().learned(),
            lambda: self._secrets,
        )
        return self._held(self.answer.begin())

    def request(self, send: Send, env: Env) -> UpstreamRequest:
        """The request of one of a flow's calls, with the credential of this moment. Raises
        Refused."""
        assert self._flow_requests is not None
        self._secrets = flow_requests.secrets(self._keys, env)
        return self._flow_requests.make(send, env)

    def _added_to_flow(self, dropped: tuple[str, ...]) -> Mapping[str, str]:
        inside = self._texts.dropped if self._texts else ()
        self._dropped = tuple(dict.fromkeys((*dropped, *inside)))
        return self._response_headers()

    # ---- the request

    def start(self, env: Env = NO_ENV) -> UpstreamRequest:
        """The request to the provider. Raises Refused."""
        if self.is_flow:
            raise Refused(SERVER_ERROR, "this request takes several calls: only the relay can")
        self._check_required_header()
        self._check_model()
        self._check_streaming()
        credentials = self._keys.credentials(env.credential)
        self._secrets += secrets_of(env.credential)
        body = self._body(env, credentials)
        headers = {
            **self._provider_headers(),
            **credentials.headers,
            **self._keys.subprotocols(),
            **self._accepted(),
        }
        place = self._place = self._address(credentials)
        headers |= self._signature(env, place, body)
        return UpstreamRequest(
            method=self._method(),
            address=place,
            set_headers={name: value for name, value in headers.items() if value},
            drop_headers=self._drop_headers(headers),
            body=body,
            secret_headers=frozenset() if self.relayed else self._keys.secret_headers(headers),
            secret_query=self._keys.secret_query(
                credentials, place.query, self.model.options.upstream_url
            ),
            response_headers=self._response_headers(),
        )

    def _body(self, env: Env, credentials: sign.Credentials) -> bytes | BodyFilter | None:
        """The body for the provider; None where the client's goes on as it is."""
        if self._converts:
            return self._converted_body(env, credentials)
        if self._is_carried or self._is_rewritten:
            self._way = self._converting(env).answered(self._json, is_carried=self._is_carried)
        try:
            changes = self._conversion().access(self._parameters())
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        self._dropped = changes.dropped
        self._asks_for_usage = changes.members.get("stream_options", REMOVED) is not REMOVED
        return self._changed_body(changes, credentials)

    def _converted_body(self, env: Env, credentials: sign.Credentials) -> bytes:
        if not isinstance(self._content, JsonObject):
            raise Refused(BAD_REQUEST, "expected a JSON object as the request's body")
        converted = self._converting(env).access(self._json)
        self._dropped = tuple(dict.fromkeys(converted.dropped))
        self._way = converted.way
        try:
            return orjson.dumps({**converted.body, **credentials.body})
        except orjson.JSONEncodeError:  # deeper than it writes, though it has read it
            raise Refused(BAD_REQUEST, "the request body is nested too deeply") from None

    def _converting(self, env: Env) -> Converting:
        return Converting(
            asked=self._asked,
            provider=self._provider,
            endpoint=self._endpoint,
            call=self._call,
            counts_usage=self._counts,
            now=int(env.now),
            id=env.id,
            secrets=self._secrets,
        )

    def _provider_headers(self) -> dict[str, str]:
        """What the provider wants to see, and the client did not say in its own words."""
        wanted = self._provider.headers(self.model.options)
        sent = self._request.headers if not self._converts else {}
        headers = {name: value for name, value in wanted.items() if name not in sent}
        if self._converts:
            headers["content-type"] = "application/json"
            headers["accept"] = "*/*"
        return headers

    def _signature(
        self, env: Env, place: Address, body: bytes | BodyFilter | None
    ) -> dict[str, str]:
        """Comes last: it covers all that is sent."""
        own = self._content.raw if isinstance(self._content, JsonObject) else b""
        sent = body if isinstance(body, bytes) else own
        return cloud.signature(self.identity, env, self._method(), place, sent)

    def _method(self) -> str:
        return self._asked.method(self._request.method)

    def _parameters(self) -> Mapping[str, object]:
        """What the client asks for by name: in its JSON, or for a WebSocket in its query."""
        if self._operation.websocket:
            return privacy.query_values(self._request.query)
        return self._json

    def _first_requested(self) -> str | None:
        """The model that the client named, as far as it is known before a form has passed."""
        if isinstance(self._content, Form) and self._content.data is not None:
            return self._content.model()
        return self._asked.model or openai.requested_model(self._parameters())

    def _check_required_header(self) -> None:
        required = self._provider.required_headers.get(self._asked.route_type)
        if required is None:
            return
        name, value = required
        if value not in head.values(self._request, name):
            raise Refused(BAD_REQUEST, f"expected the header OpenAI-Beta: {value}")

    def _check_model(self) -> None:
        if self._operation.websocket:
            model_rules.check_query(self._request)
        self._check_requested(self._requested)
        model_rules.check_present(
            self.model, self._call.route_type, self._endpoint, self._requested
        )

    def _check_requested(self, requested: str | None) -> None:
        model_rules.check_requested(self.model, self.target.route_type, self._asked, requested)

    def _check_streaming(self) -> None:
        if self._rules.response_streaming != "deny":
            return
        in_query = privacy.values(self._request.query, "stream")
        if self._asked.stream or openai.wants_stream(self._json) or not all(map(_is_no, in_query)):
            self._refuse_stream_if_denied()

    def _refuse_stream_if_denied(self) -> None:
        if self._rules.response_streaming == "deny":
            raise Refused(BAD_REQUEST, "response streaming is not enabled for this LLM")

    def _address(self, credentials: sign.Credentials) -> Address:
        found = address(
            self._provider,
            self.model,
            self._call.route_type,
            self._request,
            Subpath("", "") if self._is_asked_otherwise else self._sub,
            self._endpoint,
        )
        added = dict(credentials.query)
        fixed = self._endpoint.own_query
        if fixed:
            added.update({name: value for name, value in fixed.items() if value is not None})
        elif self._operation.websocket and not openai.session_without_model(self._parameters()):
            # Also where the client named it: whatever else a server may read as a model goes.
            added.update({"model": self.model.name} if self.model.name else {})
        own = privacy.joined(found.query, added) if added else found.query
        query = self._query(own)
        return found if query == found.query else found._replace(query=query)

    def _query(self, own: str) -> str:
        """The operator's parameters, the endpoint's and the client's."""
        client, default = self._request.query, self._endpoint.query
        if client:
            dropped = self._keys.dropped_query(own) | self._endpoint.own_query.keys()
            client = privacy.without(client, dropped)
        if default and self._converts:  # the client's are words of another format
            client = privacy.without(client, privacy.query_values(default)) if client else ""
        elif default and client:
            default = privacy.without(default, privacy.query_values(client))
        default = privacy.without(default, privacy.query_values(own)) if own else default
        return "&".join(part for part in (own, default, client) if part)

    def _drop_headers(self, replaced: Mapping[str, str]) -> frozenset[str]:
        dropped = self._keys.dropped_headers(replaced)
        if not self._converts and not isinstance(self.identity, AwsIdentity):
            return dropped
        foreign = privacy.native_headers(self._request.headers)
        return dropped | (foreign - replaced.keys())

    def _accepted(self) -> dict[str, str]:
        """Only what the relay can undo is asked for, and nothing that delays a stream."""
        if not self.relayed:
            return {}
        if leads_to_results(self._asked):
            return {"accept-encoding": "identity"}
        takes_gzip = _takes_gzip(self._request.header("accept-encoding"))
        streams = self._call.stream
        return {"accept-encoding": "gzip, identity" if takes_gzip and not streams else "identity"}

    # ---- its body

    def _changed_body(
        self, changes: Changes, credentials: sign.Credentials
    ) -> bytes | BodyFilter | None:
        members = {**changes.members, **credentials.body}
        if isinstance(self._content, Form):
            return self._changed_form(self._content, members, credentials)
        if credentials.body and (self._operation.any_body or self._content is None):
            raise Refused(
                SERVER_ERROR,
                f"auth.param_location 'body' cannot be used with route_type "
                f"'{self.target.route_type}' here: the body is left as it is",
            )
        if not members or self._content is None:
            return None
        try:
            openai.check_names(self._json, credentials.body)
        except FormatError as error:
            raise Refused(BAD_REQUEST, str(error)) from None
        return self._content.edited(members)

    def _changed_form(
        self, form: Form, members: Mapping[str, object], credentials: sign.Credentials
    ) -> bytes | BodyFilter:
        kept = frozenset(credentials.body if self.target.auth.allow_override else ())
        texts = {name: str(value) for name, value in members.items()}
        fields = FormFields(form.content_type, self._on_field, texts, kept=kept)
        if form.data is None:
            return fields
        return fields.feed(form.data) + fields.end()

    def _on_field(self, name: str, value: str) -> None:
        if name == "model" and value:
            self._requested = value
            self._check_requested(value)
        elif name == "stream" and not _is_no(value):
            self._refuse_stream_if_denied()

    # ---- the answer

    @property
    def direct(self) -> Callable[[bytes], bytes] | None:
        """What a Data event does to its chunk, once the head has come and where that is all: a
        short way past `feed` for the many pieces of a stream. "" is nothing to emit."""
        if self._hold is not None and not self._hold.is_open:
            return None
        return self.answer.direct if self.answer else None

    @property
    def is_failing(self) -> bool:
        """Whether what still comes is only an error's text."""
        return self._hold is not None and self._hold.waits

    def feed(self, event: Event) -> Iterator[Action]:
        """What to do about what came from the provider. To be followed to its end, lazily."""
        if isinstance(event, Head):
            self.answered = event.head
        if self._hold is not None:
            self._hold.look_at(event)
        return self._held(self._feed(event))

    def _held(self, actions: Iterator[Action]) -> Iterator[Action]:
        if self._hold is None or self._hold.is_open:
            return actions
        return self._hold.passed(actions, lambda: self.answer)

    def _told(self, error: ProviderError) -> tuple[Action, ...]:
        """An error of the provider's, as an answer."""
        error = privacy.masked_error(error, self._secrets)
        return client_errors.told(self._asked, error, self._response_headers())

    def _feed(self, event: Event) -> Iterator[Action]:
        if isinstance(self.answer, Flowing):
            yield from self.answer.feed(event)
        elif isinstance(event, Head):
            yield from self._begin(event.head)
        elif isinstance(event, (Received, Woken)):
            return
        elif self.answer is not None:
            yield from self.answer.feed(event)
        elif isinstance(event, Lost):
            yield answer.no_answer(event)

    def _begin(self, came: ResponseHead) -> Iterator[Action]:
        came = privacy.masked_head(came, self._secrets)
        try:
            self.answer = self._answering().answer(came, self._place, self._response_headers())
        except Refused as refused:
            yield Fail("invalid_header", refused.message, refused)
            return
        yield from self.answer.commit()

    def _answering(self) -> Answering:
        return Answering(
            asked=self._asked,
            call=self._call,
            endpoint=self._endpoint,
            provider=self._provider,
            logging=self.target.logging,
            request=self._request,
            body=self._json,
            asks_for_usage=self._asks_for_usage,
            way=self._way,
            watches=self._trial,
        )

    @property
    def is_logged(self) -> bool:
        """Whether the configuration wants to know what became of the request."""
        return self.target.logging.log_statistics or self.target.logging.log_payloads

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return self._operation.websocket

    @property
    def wants_stream(self) -> bool:
        """Whether the answer is to be a stream."""
        return self._call.stream

    @property
    def change_message(self) -> Callable[[live.Message], live.Message] | None:
        """What goes on of a message that the client sends through a WebSocket, where they have to
        be looked at. Raises FormatError for one that must not."""
        return self._setup.feed if self._setup else None

    def open_realtime(self) -> SessionReading | None:
        """Who reads the WebSocket's messages from now on, if anybody does."""
        if self.is_logged or self._trial.counts:
            logging = self.target.logging
            self._realtime = realtime(
                keep=logging.log_payloads,
                count=logging.log_statistics or self._trial.counts,
                is_live=self._setup is not None,
            )
        return self._realtime

    @property
    def reading(self) -> Known | SessionReading | None:
        """What is known of the answer, as far as it has passed by."""
        return self._realtime or (self.answer.reading if self.answer else None)

    @property
    def mode(self) -> RequestMode:
        """How the answer came."""
        if self._operation.websocket:
            return "realtime"
        if self.answer is None:
            return "oneshot"
        # A stream may be a JSON array, which does not look like one.
        native = self._asked.native is not None and self._call.stream and self.answer.status == OK
        return "stream" if native or self.answer.is_stream else "oneshot"

    @property
    def request_model(self) -> str | None:
        """What the provider is asked for; `preserve` only knows what the client wrote."""
        if self.target.route_type == openai.PRESERVE or not self._operation.model:
            return self._requested
        told = self._setup.model if self._setup else None
        return self.model.name or told or self._requested

    @property
    def usage(self) -> Usage | None:
        """What the answer has used, as far as it has passed by."""
        return self.reading.usage if self.reading else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts of the operator's that must be in no log, wherever they turn up: providers quote
        the key that they refuse."""
        return self._secrets

    def request_payload(self) -> str | None:
        """The client's JSON for the log, where it was read."""
        if not isinstance(self._content, JsonObject):
            return None
        return self._content.raw.decode("utf-8", "replace")

    def _response_headers(self) -> dict[str, str]:
        wanted = self._rules.model_name_header or "kong-debug" in self._request.headers
        name = f"{self.model.provider}/{self.request_model}" if self.request_model else ""
        return added_headers.added(name if wanted else "", self._dropped)


def _is_no(text: str) -> bool:
    """Whether every server takes this for false."""
    return text.strip().lower() in ("", "0", "false")


@lru_cache(maxsize=64)
def _takes_gzip(accepted: str | None) -> bool:
    return coding.accepts(accepted, "gzip")
