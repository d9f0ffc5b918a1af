"""How the answer to a request that is one call comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from kong_ai_proxy.config import Logging
from kong_ai_proxy.exchange import answer, led_back
from kong_ai_proxy.exchange.answer import Answer
from kong_ai_proxy.exchange.asking import OPENAI_CODECS, Asked
from kong_ai_proxy.exchange.errors import OK
from kong_ai_proxy.exchange.hold import NO_TRIAL, Trial
from kong_ai_proxy.exchange.learned import Learned
from kong_ai_proxy.exchange.led_back import LedBack
from kong_ai_proxy.exchange.messages import Address, ClientRequest, ResponseHead
from kong_ai_proxy.exchange.observed import observed
from kong_ai_proxy.exchange.reading import Reading, one_shot, stream
from kong_ai_proxy.exchange.translation import TranslatedAnswer, Way
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ChatClient, Context
from kong_ai_proxy.formats.deltas import Failed
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.usage import prompt_estimate
from kong_ai_proxy.providers.base import Call, Endpoint, Provider


def speaks_openai(asked: Asked) -> bool:
    """Whether the client speaks OpenAI's format: Hugging Face's clients do too, for chat."""
    return asked.native is None or asked.codec is OPENAI_CODECS[openai.CHAT]


def chats_in_openai(asked: Asked) -> bool:
    """Whether it does so in a conversation."""
    return speaks_openai(asked) and asked.route_type == openai.CHAT


def leads_to_results(asked: Asked) -> bool:
    """Whether the answer may tell the client where results are."""
    native = asked.native
    return native is not None and led_back.tells_results(native.format, native.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What is known of a request when its answer begins."""

    asked: Asked
    call: Call
    endpoint: Endpoint
    provider: Provider
    logging: Logging
    request: ClientRequest
    body: Mapping[str, object]
    """The client's JSON."""
    asks_for_usage: bool
    """Whether it was us who asked for a stream's usage."""
    way: Way | None
    """How the answer is converted; None where it is not."""
    watches: Trial = NO_TRIAL
    """What the balancer wants to know of it."""

    def answer(
        self, head: ResponseHead, place: Address | None, added: dict[str, str]
    ) -> Answer | TranslatedAnswer | LedBack:
        """The answer with this head of the provider's, which comes from `place`; `added` are
        headers for the client. Raises Refused."""
        native = self.asked.native
        own = led_back.own_address(self.request, native.path) if native else ""
        if native is not None and place is not None:
            head = led_back.with_own_upload(head, place, own, native.path)
        if head.status != OK:  # as with Kong's own plugin
            added.pop(answer.MODEL_HEADER, None)
        if self.way is not None:
            return TranslatedAnswer(head, self.way, added, self.learned())
        if leads_to_results(self.asked):
            return LedBack(head, own, self._reading(head), added)
        return Answer(head, self.request, self._reading(head), added, self._broken(head))

    def learned(self) -> Learned:
        """What is learnt from an answer in whichever format."""
        estimates = self.asked.route_type in openai.TEXT_ROUTE_TYPES
        return Learned(
            keep=self.logging.log_payloads,
            prompt_estimate=partial(prompt_estimate, self.body) if estimates else None,
        )

    def _reading(self, head: ResponseHead) -> Reading | None:
        is_logged = self.logging.log_statistics or self.logging.log_payloads
        is_held = self.watches.holds and (self.call.stream or answer.is_event_stream(head))
        if not (is_logged or self._strips_usage or self.watches.counts or is_held):
            return None
        codec = self.endpoint.codec
        if not speaks_openai(self.asked) and codec is not None:
            return observed(codec, head, self.learned(), stream=self.call.stream)
        if answer.is_event_stream(head):
            return stream(
                self.asked.route_type,
                keep=self.logging.log_payloads,
                strip_usage=self.asks_for_usage or self._strips_usage,
                method=self.request.method,
                prompt_estimate=partial(prompt_estimate, self.body),
            )
        return one_shot(
            self.asked.operation,
            keep=self.logging.log_payloads,
            method=self.request.method,
            content_type=head.header("content-type"),
        )

    @property
    def _strips_usage(self) -> bool:
        """Whether the provider tells its usage although the client did not ask for it."""
        unasked = self.provider.tells_usage_unasked and chats_in_openai(self.asked)
        return unasked and not openai.wants_usage(self.body)

    def _broken(self, head: ResponseHead) -> bytes | None:
        """What the client of a native stream is told when it breaks off, in its own words."""
        client = self.asked.codec
        if speaks_openai(self.asked) or not self.call.stream or client is None:
            return None
        media_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
        stream_type = getattr(client, "stream_type", "")
        if media_type != stream_type or media_type == "application/json":
            return None
        failed = Failed(ProviderError(answer.BROKE_OFF))
        told = cast(ChatClient, client).writer(Context()).feed([failed])
        # What has come of an event ends here.
        return b"\n\n" + told if media_type == answer.EVENT_STREAM else told
