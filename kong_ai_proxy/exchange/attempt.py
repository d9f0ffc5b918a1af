"""One client request x one target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from kong_ai_proxy.auth.identity import Identity
from kong_ai_proxy.config import Model, Target
from kong_ai_proxy.exchange import answer, client_errors, flow_requests, privacy
from kong_ai_proxy.exchange.answering import Answering
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.case import Case, Content, Rules
from kong_ai_proxy.exchange.errors import METHOD_NOT_ALLOWED, OK, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.flow_requests import FlowRequests
from kong_ai_proxy.exchange.flowing import Flowing
from kong_ai_proxy.exchange.hold import NO_TRIAL, Hold, Trial
from kong_ai_proxy.exchange.led_back import LedBack
from kong_ai_proxy.exchange.messages import (
    NO_ENV,
    Action,
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
from kong_ai_proxy.exchange.outgoing import Outgoing
from kong_ai_proxy.exchange.reading import Known, realtime
from kong_ai_proxy.exchange.realtime_reading import SessionReading
from kong_ai_proxy.exchange.texts import BatchTexts
from kong_ai_proxy.exchange.translation import TranslatedAnswer
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.formats.usage import Usage
from kong_ai_proxy.providers.flow import Send


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
        self.answer: answer.Answer | TranslatedAnswer | Flowing | LedBack | None = None
        self.answered: ResponseHead | None = None
        """The head of the provider's answer; of several calls the last one's."""
        self._trial = trial
        self._realtime: SessionReading | None = None
        self._case = Case(
            target,
            model,
            rules,
            request,
            content,
            asked,
            identity=identity,
            relayed=relayed,
            counts=trial.counts,
        )
        self._outgoing = Outgoing(self._case)
        self._hold: Hold | None = None
        if trial is not NO_TRIAL:
            told = partial(_told, self._case, self._outgoing)
            self._hold = Hold(trial, told, is_json=asked.codec is not None)
        self._flow_requests: FlowRequests | None = None

    def start(self, env: Env = NO_ENV) -> UpstreamRequest:
        """The request to the provider. Raises Refused."""
        if self.is_flow:
            raise Refused(SERVER_ERROR, "this request takes several calls: only the relay can")
        return self._outgoing.request(env)

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
        return self._case.endpoint.flow is not None

    def begin(self, env: Env) -> Iterator[Action]:
        """What a flow does first. Raises Refused."""
        case, flow = self._case, self._case.endpoint.flow
        assert flow is not None
        if case.request.method == "HEAD":
            allowed = {"allow": "DELETE, GET, POST"}
            raise Refused(METHOD_NOT_ALLOWED, "HEAD: expected GET, POST or DELETE", allowed)
        self._outgoing.check()
        self._flow_requests = FlowRequests(
            provider=case.provider,
            model=case.model,
            request=case.request,
            keys=case.keys,
            identity=case.identity,
        )
        texts = BatchTexts(provider=case.provider, model=case.model, now=int(env.now), id=env.id)
        content = case.content
        wanted = flow_requests.wanted(
            case.call,
            case.request,
            case.sub,
            content.value if isinstance(content, JsonObject) else content,
            env,
            texts,
            case.provider.name,
        )
        outgoing = self._outgoing
        self.answer = Flowing(
            flow.run(wanted),
            partial(_added_to_flow, outgoing, texts),
            self._answering().learned(),
            lambda: outgoing.secrets,
        )
        return self._held(self.answer.begin())

    def request(self, send: Send, env: Env) -> UpstreamRequest:
        """The request of one of a flow's calls, with the credential of this moment. Raises
        Refused."""
        assert self._flow_requests is not None
        self._outgoing.secrets = flow_requests.secrets(self._case.keys, env)
        return self._flow_requests.make(send, env)

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
        came = privacy.masked_head(came, self._outgoing.secrets)
        try:
            self.answer = self._answering().answer(
                came, self._outgoing.place, self._outgoing.response_headers()
            )
        except Refused as refused:
            yield Fail("invalid_header", refused.message, refused)
            return
        yield from self.answer.commit()

    def _answering(self) -> Answering:
        case, outgoing = self._case, self._outgoing
        return Answering(
            asked=case.asked,
            call=case.call,
            endpoint=case.endpoint,
            provider=case.provider,
            logging=self.target.logging,
            request=case.request,
            body=case.json,
            asks_for_usage=outgoing.asks_for_usage,
            way=outgoing.way,
            watches=self._trial,
        )

    @property
    def is_logged(self) -> bool:
        """Whether the configuration wants to know what became of the request."""
        return self.target.logging.log_statistics or self.target.logging.log_payloads

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return self._case.operation.websocket

    @property
    def wants_stream(self) -> bool:
        """Whether the answer is to be a stream."""
        return self._case.call.stream

    @property
    def change_message(self) -> Callable[[live.Message], live.Message] | None:
        """What goes on of a message that the client sends through a WebSocket, where they have to
        be looked at. Raises FormatError for one that must not."""
        return self._case.setup.feed if self._case.setup else None

    def open_realtime(self) -> SessionReading | None:
        """Who reads the WebSocket's messages from now on, if anybody does."""
        if self.is_logged or self._trial.counts:
            logging = self.target.logging
            self._realtime = realtime(
                keep=logging.log_payloads,
                count=logging.log_statistics or self._trial.counts,
                is_live=self._case.setup is not None,
            )
        return self._realtime

    @property
    def reading(self) -> Known | SessionReading | None:
        """What is known of the answer, as far as it has passed by."""
        return self._realtime or (self.answer.reading if self.answer else None)

    @property
    def mode(self) -> RequestMode:
        """How the answer came."""
        if self._case.operation.websocket:
            return "realtime"
        if self.answer is None:
            return "oneshot"
        # A stream may be a JSON array, which does not look like one.
        native = (
            self._case.asked.native is not None
            and self._case.call.stream
            and self.answer.status == OK
        )
        return "stream" if native or self.answer.is_stream else "oneshot"

    @property
    def request_model(self) -> str | None:
        """What the provider is asked for; `preserve` only knows what the client wrote."""
        return self._outgoing.model

    @property
    def usage(self) -> Usage | None:
        """What the answer has used, as far as it has passed by."""
        return self.reading.usage if self.reading else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts of the operator's that must be in no log, wherever they turn up: providers quote
        the key that they refuse."""
        return self._outgoing.secrets

    def request_payload(self) -> str | None:
        """The client's JSON for the log, where it was read."""
        content = self._case.content
        return content.raw.decode("utf-8", "replace") if isinstance(content, JsonObject) else None


# Not methods: an attempt that its own parts refer to would wait for the garbage collector, and with
# it the client's body.


def _told(case: Case, outgoing: Outgoing, error: ProviderError) -> tuple[Action, ...]:
    """An error of the provider's, as an answer."""
    error = privacy.masked_error(error, outgoing.secrets)
    return client_errors.told(case.asked, error, outgoing.response_headers())


def _added_to_flow(
    outgoing: Outgoing, texts: BatchTexts, dropped: tuple[str, ...]
) -> Mapping[str, str]:
    """Headers for the answer of a flow that has dropped these parameters."""
    outgoing.dropped = tuple(dict.fromkeys((*dropped, *texts.dropped)))
    return outgoing.response_headers()
