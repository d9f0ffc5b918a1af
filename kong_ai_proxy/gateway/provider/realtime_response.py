"""A realtime response: its events one after the other, in the names of either API version."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kong_ai_proxy.gateway.provider import sound, text
from kong_ai_proxy.gateway.provider.chat import Choice, written_pieces
from kong_ai_proxy.gateway.provider.http import Json, new_id

_TOKENS_A_SECOND: Final = 20
_SILENCE: Final = {"audio/pcmu": b"\xff", "audio/pcma": b"\xd5"}  # of G.711, 8,000 bytes a second


@dataclass(frozen=True)
class Dialect:
    """What the beta (`OpenAI-Beta: realtime=v1`) calls otherwise than the API of today."""

    ga: bool

    @property
    def text(self) -> str:
        return "output_text" if self.ga else "text"

    @property
    def audio(self) -> str:
        return "output_audio" if self.ga else "audio"

    def item_begun(self, item: Json, previous: str | None) -> Json:
        """An item has come into the conversation."""
        name = "added" if self.ga else "created"
        return {
            "type": f"conversation.item.{name}",
            "previous_item_id": previous,
            "item": item,
        }

    def item_done(self, item: Json, previous: str | None) -> list[Json]:
        """An item is complete, which the beta does not say."""
        done = {"type": "conversation.item.done", "previous_item_id": previous, "item": item}
        return [done] if self.ga else []

    def modalities(self, value: list[str]) -> Json:
        return {"output_modalities" if self.ga else "modalities": value}


@dataclass(frozen=True)
class Wanted:
    """What a response shall be."""

    modalities: list[str]
    audio_format: str
    voice: Any
    metadata: Json | None
    most_tokens: Any  # a number or "inf"
    conversation_id: str | None


@dataclass
class Reply:
    """A response under way. `cancel` ends it early."""

    dialect: Dialect
    wanted: Wanted
    choice: Choice
    given_tokens: int
    heard_tokens: int
    keep: Callable[[Json], str | None]  # puts the item into the conversation, gives the one before
    id: str = field(default_factory=lambda: new_id("resp_"))
    cancelled: bool = False

    @property
    def spoken(self) -> bool:
        return "audio" in self.wanted.modalities

    def events(self) -> Iterator[Json]:
        """Every event from `response.created` to `response.done`."""
        yield {"type": "response.created", "response": self._shown("in_progress", [], None)}
        item = self._item()
        yield {**self._at("output_item.added"), "item": item}
        previous = self.keep(item)
        if self.wanted.conversation_id is not None:
            yield self.dialect.item_begun(dict(item), previous)
        made = yield from self._called(item) if self.choice.call else self._said(item)
        item["status"] = "incomplete" if self._cut else "completed"
        if self.wanted.conversation_id is not None:
            yield from self.dialect.item_done(dict(item), previous)
        yield {**self._at("output_item.done"), "item": dict(item)}
        status = "cancelled" if self.cancelled else "incomplete" if self._cut else "completed"
        yield {
            "type": "response.done",
            "response": self._shown(status, [item], self._usage(made)),
        }

    @property
    def _cut(self) -> bool:
        return self.cancelled or self.choice.finish_reason == "length"

    def _at(self, name: str) -> Json:
        return {"type": f"response.{name}", "response_id": self.id, "output_index": 0}

    def _item(self) -> Json:
        head = {"id": new_id("item_"), "object": "realtime.item", "status": "in_progress"}
        if self.choice.call is None:
            return {**head, "type": "message", "role": "assistant", "content": []}
        name = self.choice.call["function"]["name"]
        call = {"name": name, "call_id": self.choice.call["id"], "arguments": ""}
        return {**head, "type": "function_call", **call}

    def _said(self, item: Json) -> Generator[Json, None, int]:
        """The events of a message. Returns how many words it has."""
        at = {"item_id": item["id"], "content_index": 0}
        empty = {"type": "audio", "transcript": ""} if self.spoken else {"type": "text", "text": ""}
        yield {**self._at("content_part.added"), **at, "part": empty}
        said: list[str] = []
        for piece in self.choice.pieces:
            if self.cancelled:
                break
            said.append(piece)
            yield from self._delta(piece, at)
        yield from self._done("".join(said), at)
        whole = {**empty, "transcript" if self.spoken else "text": "".join(said)}
        yield {**self._at("content_part.done"), **at, "part": whole}
        kind = self.dialect.audio if self.spoken else self.dialect.text
        item["content"] = [{**whole, "type": kind}]
        return len(said)

    def _delta(self, piece: str, at: Json) -> Iterator[Json]:
        if not self.spoken:
            yield {**self._at(f"{self.dialect.text}.delta"), **at, "delta": piece}
            return
        audio = self.dialect.audio
        yield {**self._at(f"{audio}_transcript.delta"), **at, "delta": piece}
        beep = base64.b64encode(self._beep(piece)).decode()
        yield {**self._at(f"{audio}.delta"), **at, "delta": beep}

    def _beep(self, piece: str) -> bytes:
        silence = _SILENCE.get(self.wanted.audio_format)
        if silence is not None:
            return silence * round(8000 * sound.WORD_SECONDS)
        return sound.samples(piece)

    def _done(self, said: str, at: Json) -> Iterator[Json]:
        if not self.spoken:
            yield {**self._at(f"{self.dialect.text}.done"), **at, "text": said}
            return
        yield {**self._at(f"{self.dialect.audio}.done"), **at}
        yield {**self._at(f"{self.dialect.audio}_transcript.done"), **at, "transcript": said}

    def _called(self, item: Json) -> Generator[Json, None, int]:
        """The events of a function call. Returns how many words its arguments have."""
        assert self.choice.call is not None
        arguments = self.choice.call["function"]["arguments"]
        at = {"item_id": item["id"], "call_id": item["call_id"]}
        made = ""
        for piece in written_pieces(arguments):
            if self.cancelled:
                break
            made += piece
            yield {**self._at("function_call_arguments.delta"), **at, "delta": piece}
        done = {"name": item["name"], "arguments": made}
        yield {**self._at("function_call_arguments.done"), **at, **done}
        item["arguments"] = made
        return text.count(made)

    def _shown(self, status: str, output: list[Json], usage: Json | None) -> Json:
        details = None if status == "in_progress" else {"type": status, **self._reason(status)}
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": self.wanted.conversation_id,
            **self.dialect.modalities(self.wanted.modalities),
            **self._voiced(),
            "metadata": self.wanted.metadata,
            "usage": usage,
        }

    def _voiced(self) -> Json:
        if self.dialect.ga:
            form: Json = {"type": self.wanted.audio_format}
            if self.wanted.audio_format == "audio/pcm":
                form["rate"] = sound.RATE
            output = {"format": form, "voice": self.wanted.voice}
            return {"max_output_tokens": self.wanted.most_tokens, "audio": {"output": output}}
        names = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
        return {
            "max_output_tokens": self.wanted.most_tokens,
            "voice": self.wanted.voice,
            "output_audio_format": names[self.wanted.audio_format],
            "temperature": 0.8,
        }

    def _reason(self, status: str) -> Json:
        reasons = {"cancelled": "client_cancelled", "incomplete": "max_output_tokens"}
        return {"reason": reasons[status]} if status in reasons else {}

    def _usage(self, words: int) -> Json:
        voiced = round(words * sound.WORD_SECONDS * _TOKENS_A_SECOND) if self.spoken else 0
        given = self.given_tokens + self.heard_tokens
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": given + words + voiced,
            "input_tokens": given,
            "output_tokens": words + voiced,
            "input_token_details": {
                "text_tokens": self.given_tokens,
                "audio_tokens": self.heard_tokens,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": words, "audio_tokens": voiced},
        }
