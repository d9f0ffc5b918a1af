"""A realtime session without its socket: client events in, server events out.

Follows OpenAI's reference of realtime client and server events, of today's API and of the beta.
Speech is not detected: a turn ends where the client commits its audio.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Final

import orjson

from kong_ai_proxy.gateway.provider import chat
from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Rule,
    check_params,
    each,
    member,
    new_id,
    now,
    wrong_value,
)
from kong_ai_proxy.gateway.provider.realtime_response import Dialect, Reply, Wanted

_STRING: Final = Rule("a string")
_OBJECT: Final = Rule("an object")
_ARRAY: Final = Rule("an array")
_ANYTHING: Final = Rule("anything")

_SHARED: Final[dict[str, Rule]] = {
    "instructions": _STRING,
    "model": _STRING,
    "tool_choice": Rule("a string or an object"),
    "tools": _ARRAY,
    "tracing": _ANYTHING,
}
_SESSION: Final[dict[str, Rule]] = {
    **_SHARED,
    "audio": _OBJECT,
    "include": _ARRAY,
    "max_output_tokens": _ANYTHING,
    "output_modalities": _ARRAY,
    "parallel_tool_calls": Rule("a boolean"),
    "prompt": _OBJECT,
    "reasoning": _OBJECT,
    "truncation": _ANYTHING,
    "type": Rule("a string", options=("realtime",)),
}
_BETA_FORMATS: Final = {
    "pcm16": "audio/pcm",
    "g711_ulaw": "audio/pcmu",
    "g711_alaw": "audio/pcma",
}
_FORMAT: Final = Rule("a string", options=tuple(_BETA_FORMATS))
_FORMAT_TYPE: Final = Rule("a string", options=tuple(_BETA_FORMATS.values()))
_BETA_SESSION: Final[dict[str, Rule]] = {
    **_SHARED,
    "client_secret": _OBJECT,
    "input_audio_format": _FORMAT,
    "input_audio_noise_reduction": _OBJECT,
    "input_audio_transcription": _OBJECT,
    "max_response_output_tokens": _ANYTHING,
    "modalities": _ARRAY,
    "output_audio_format": _FORMAT,
    "speed": Rule("a decimal", 0.25, 1.5),
    "temperature": Rule("a decimal", 0.6, 1.2),
    "turn_detection": _OBJECT,
    "voice": Rule("a string or an object"),
}
_NULLABLE: Final = (
    "include",
    "input_audio_noise_reduction",
    "input_audio_transcription",
    "prompt",
    "tracing",
    "turn_detection",
)
_RESPONSE: Final[dict[str, Rule]] = {
    "conversation": _STRING,
    "input": _ARRAY,
    "metadata": _OBJECT,
}
_TURNS: Final = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "create_response": True,
    "interrupt_response": True,
}
_INSTRUCTIONS: Final = "You are a stand-in for a language model."
_HOUR: Final = 3600
_MOST_ITEMS: Final = 1000
_MOST_BYTES: Final = 16 * 1024 * 1024
_LEAST_AUDIO_MS: Final = 100
_HEARD_TOKENS_A_SECOND: Final = 10
_USER_PARTS: Final = ("input_text", "input_audio", "input_image")


class Session:
    """One client's session. `receive` answers an event; `next` gives the response's next event."""

    def __init__(self, model: str, *, ga: bool) -> None:
        self._dialect = Dialect(ga)
        self._conversation = new_id("conv_")
        self._session = _fresh(model) if ga else _fresh_beta(model)
        self._items: list[Json] = []
        self._seconds: dict[str, float] = {}  # of the items that hold audio
        self._buffered = 0  # bytes of audio; the audio itself is not kept
        self._reply: Reply | None = None
        self._events: Iterator[Json] = iter(())
        self._handlers: dict[str, Callable[[Json], list[Json]]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.delete": self._delete_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    @property
    def responding(self) -> bool:
        return self._reply is not None

    def opening(self) -> list[Json]:
        """What a client hears first."""
        begun = [{"type": "session.created", "session": self._session}]
        if not self._dialect.ga:
            conversation = {"id": self._conversation, "object": "realtime.conversation"}
            begun.append({"type": "conversation.created", "conversation": conversation})
        return [_numbered(event) for event in begun]

    def receive(self, message: str | bytes) -> list[Json]:
        """The answers to a client's event; what is wrong with it is an answer too."""
        event_id = None
        try:
            event = _parsed(message)
            event_id = event.get("event_id")
            kind = event.get("type")
            if not isinstance(kind, str) or kind not in self._handlers:
                raise wrong_value("type", kind, self._handlers)
            answers = self._handlers[kind](event)
        except ApiError as error:
            answers = [{"type": "error", "error": {**error.body["error"], "event_id": event_id}}]
        return [_numbered(answer) for answer in answers]

    def next(self) -> Json | None:
        """The next event of the response under way; None when there is none."""
        for event in self._events:
            if event["type"] == "response.done":
                self._reply = None
            return _numbered(event)
        return None

    # -- session ---------------------------------------------------------------------------------

    def _update(self, event: Json) -> list[Json]:
        asked = member(event, "session", "event", _OBJECT)
        rules, required = (_SESSION, ("type",)) if self._dialect.ga else (_BETA_SESSION, ())
        given = check_params(asked, rules, required, "session")
        self._check_options(given, "session")
        if given.get("model", self._session["model"]) != self._session["model"]:
            raise ApiError(
                400,
                f"Session model is '{self._session['model']}', but '{given['model']}' was "
                "provided. Model mismatches are not supported.",
                param="session.model",
                code="session_model_mismatch",
            )
        emptied = {name: None for name in _NULLABLE if name in asked and asked[name] is None}
        self._session = _merged(self._session, {**given, **emptied})
        return [{"type": "session.updated", "session": self._session}]

    def _check_options(self, given: Json, path: str) -> None:
        """What a session and a response may both be told. Raises ApiError 400."""
        each(given.get("tools", []), f"{path}.tools", _check_tool)
        name = "output_modalities" if self._dialect.ga else "modalities"
        sets = [["text"], ["audio"]] if self._dialect.ga else [["text"], ["audio", "text"]]
        if name in given and sorted(map(str, given[name])) not in sets:
            options = [str(option) for option in sets]
            raise wrong_value(f"{path}.{name}", given[name], options)
        _check_audio(given.get("audio", {}), f"{path}.audio")
        for limit in ("max_output_tokens", "max_response_output_tokens"):
            value = given.get(limit, "inf")
            if value != "inf":
                Rule("an integer", 1, 4096).check(f"{path}.{limit}", value)

    # -- audio -----------------------------------------------------------------------------------

    def _append(self, event: Json) -> list[Json]:
        audio = member(event, "audio", "event", _STRING)
        try:
            self._buffered += len(base64.b64decode(audio, validate=True))
        except (binascii.Error, ValueError):
            raise ApiError(
                400,
                "Invalid 'audio'. Expected base64-encoded audio bytes, but got an invalid value.",
                param="audio",
                code="invalid_value",
            ) from None
        return []

    def _commit(self, _: Json) -> list[Json]:
        rate = 48000 if self._input_format() == "audio/pcm" else 8000
        seconds = self._buffered / rate
        if seconds * 1000 < _LEAST_AUDIO_MS:
            raise ApiError(
                400,
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_LEAST_AUDIO_MS}ms of audio, but buffer only has {seconds * 1000:.2f}ms of "
                "audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._buffered = 0
        item = _item({"type": "message", "role": "user", "content": [{"type": "input_audio"}]})
        heard = f"{seconds:.1f} seconds of audio"
        item["content"][0]["transcript"] = heard
        self._seconds[item["id"]] = seconds
        previous = self._keep(item)
        committed = {"item_id": item["id"], "previous_item_id": previous}
        return [
            {"type": "input_audio_buffer.committed", **committed},
            self._dialect.item_begun(item, previous),
            *self._dialect.item_done(item, previous),
            *self._transcribed(item["id"], heard, seconds),
        ]

    def _input_format(self) -> str:
        if self._dialect.ga:
            return _audio_format(self._session, "input")
        return _BETA_FORMATS[self._session["input_audio_format"]]

    def _transcribed(self, item_id: str, heard: str, seconds: float) -> list[Json]:
        if self._dialect.ga:
            wanted = self._session["audio"]["input"].get("transcription")
        else:
            wanted = self._session.get("input_audio_transcription")
        if wanted is None:
            return []
        kind = "conversation.item.input_audio_transcription"
        at = {"item_id": item_id, "content_index": 0}
        usage = {"type": "duration", "seconds": seconds}
        return [
            {"type": f"{kind}.delta", **at, "delta": heard},
            {"type": f"{kind}.completed", **at, "transcript": heard, "usage": usage},
        ]

    def _clear(self, _: Json) -> list[Json]:
        self._buffered = 0
        return [{"type": "input_audio_buffer.cleared"}]

    # -- items -----------------------------------------------------------------------------------

    def _create_item(self, event: Json) -> list[Json]:
        asked = member(event, "item", "event", _OBJECT)
        _check_item(asked, "item", self._dialect)
        item = _item(asked)
        previous = self._keep(item, event.get("previous_item_id"))
        begun = self._dialect.item_begun(item, previous)
        return [begun, *self._dialect.item_done(item, previous)]

    def _keep(self, item: Json, after: object = None) -> str | None:
        """Put an item into the conversation. Returns the id of the one before it."""
        if any(kept["id"] == item["id"] for kept in self._items):
            message = f"Error adding item: an item with id '{item['id']}' is already there."
            raise ApiError(400, message, param="item.id", code="item_create_duplicate_item_id")
        if after is None:
            place = len(self._items)
        else:
            place = 0 if after == "root" else self._place(after, "previous_item_id") + 1
        self._items.insert(place, item)
        while len(self._items) > _MOST_ITEMS or len(orjson.dumps(self._items)) > _MOST_BYTES:
            gone = self._items.pop(0)
            self._seconds.pop(gone["id"], None)
            place -= 1
        return str(self._items[place - 1]["id"]) if place > 0 else None

    def _place(self, key: object, param: str) -> int:
        for place, item in enumerate(self._items):
            if item["id"] == key:
                return place
        message = f"Item with id '{key}' not found in the conversation."
        raise ApiError(400, message, param=param, code="item_not_found")

    def _named(self, event: Json) -> Json:
        return self._items[self._place(member(event, "item_id", "event", _STRING), "item_id")]

    def _retrieve_item(self, event: Json) -> list[Json]:
        return [{"type": "conversation.item.retrieved", "item": self._named(event)}]

    def _truncate_item(self, event: Json) -> list[Json]:
        item = self._named(event)
        at = {
            name: member(event, name, "event", Rule("an integer", 0))
            for name in ("content_index", "audio_end_ms")
        }
        if item.get("role") != "assistant":
            message = "Only assistant audio messages can be truncated."
            raise ApiError(400, message, param="item_id", code="invalid_value")
        return [{"type": "conversation.item.truncated", "item_id": item["id"], **at}]

    def _delete_item(self, event: Json) -> list[Json]:
        item = self._named(event)
        self._items.remove(item)
        self._seconds.pop(item["id"], None)
        return [{"type": "conversation.item.deleted", "item_id": item["id"]}]

    # -- responses -------------------------------------------------------------------------------

    def _create_response(self, event: Json) -> list[Json]:
        if self._reply is not None:
            raise ApiError(
                400,
                f"Conversation already has an active response in progress: {self._reply.id}. Wait "
                "until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        asked = event.get("response") or {}
        _OBJECT.check("response", asked)
        session_rules = _SESSION if self._dialect.ga else _BETA_SESSION
        given = check_params(asked, {**session_rules, **_RESPONSE}, (), "response")
        self._check_options(given, "response")
        self._reply = self._planned(given)
        self._events = self._reply.events()
        return []

    def _planned(self, given: Json) -> Reply:
        options = _merged(self._session, {k: v for k, v in given.items() if k not in _RESPONSE})
        items = self._items
        if "input" in given:
            each(given["input"], "response.input", self._check_input)
            items = [self._resolved(item) for item in given["input"]]
        asked = _as_chat(options, items)
        heard = sum(self._seconds.get(str(item.get("id")), 0.0) for item in items)
        outside = given.get("conversation") == "none"
        wanted = self._wanted(options, given, None if outside else self._conversation)
        return Reply(
            self._dialect,
            wanted,
            chat.choose(asked, 0),
            chat.prompt_tokens(asked),
            round(heard * _HEARD_TOKENS_A_SECOND),
            (lambda _: None) if outside else self._keep,
        )

    def _check_input(self, item: Json, path: str) -> None:
        if item.get("type") != "item_reference":
            _check_item(item, path, self._dialect)

    def _resolved(self, item: Json) -> Json:
        if item.get("type") != "item_reference":
            return _item(item)
        return self._items[self._place(item.get("id"), "response.input")]

    def _wanted(self, options: Json, given: Json, conversation_id: str | None) -> Wanted:
        if self._dialect.ga:
            modalities = options["output_modalities"]
            form = _audio_format(options, "output")
            voice = options["audio"]["output"].get("voice")
            most = options["max_output_tokens"]
        else:
            modalities = options["modalities"]
            form = _BETA_FORMATS[options["output_audio_format"]]
            voice, most = options["voice"], options["max_response_output_tokens"]
        return Wanted(modalities, form, voice, given.get("metadata"), most, conversation_id)

    def _cancel_response(self, event: Json) -> list[Json]:
        if self._reply is None or event.get("response_id") not in (None, self._reply.id):
            message = "Cancellation failed: no active response found"
            raise ApiError(400, message, code="response_cancel_not_active")
        self._reply.cancelled = True
        return []


def _parsed(message: str | bytes) -> Json:
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        why = f"We could not parse the JSON of the event: {error}."
        raise ApiError(400, why, code="invalid_json") from None
    _OBJECT.check("event", event)
    assert isinstance(event, dict)
    return event


def _numbered(event: Json) -> Json:
    return {"event_id": new_id("event_"), **event}


def _merged(old: Json, new: Json) -> Json:
    """`old` with the members of `new`, records within `audio` merged likewise."""
    out = {**old, **new}
    for name in ("audio", "input", "output"):
        if isinstance(old.get(name), dict):
            out[name] = _merged(old[name], new.get(name) or {})
    return out


def _audio_format(session: Json, side: str) -> str:
    """The media type of a side's audio."""
    form = session["audio"][side].get("format") or {}
    return str(form.get("type", "audio/pcm"))


def _check_audio(audio: Json, path: str) -> None:
    """What a session says of its audio. Raises ApiError 400."""
    for side in ("input", "output"):
        told = audio.get(side) or {}
        _OBJECT.check(f"{path}.{side}", told)
        form = told.get("format") or {}
        _OBJECT.check(f"{path}.{side}.format", form)
        _FORMAT_TYPE.check(f"{path}.{side}.format.type", form.get("type", "audio/pcm"))


def _fresh(model: str) -> Json:
    form = {"type": "audio/pcm", "rate": 24000}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": new_id("sess_"),
        "model": model,
        "output_modalities": ["audio"],
        "instructions": _INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": now() + _HOUR,
        "audio": {
            "input": {
                "format": form,
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": _TURNS,
            },
            "output": {"format": form, "voice": "alloy", "speed": 1.0},
        },
        "include": None,
    }


def _fresh_beta(model: str) -> Json:
    return {
        "id": new_id("sess_"),
        "object": "realtime.session",
        "model": model,
        "expires_at": now() + _HOUR,
        "modalities": ["text", "audio"],
        "instructions": _INSTRUCTIONS,
        "voice": "alloy",
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": None,
        "input_audio_noise_reduction": None,
        "turn_detection": _TURNS,
        "tools": [],
        "tool_choice": "auto",
        "temperature": 0.8,
        "max_response_output_tokens": "inf",
        "speed": 1.0,
        "tracing": None,
    }


def _check_tool(tool: Json, path: str) -> None:
    options = Rule("a string", options=("function", "mcp"))
    if member(tool, "type", path, options) == "function":
        member(tool, "name", path, _STRING)
        if tool.get("parameters") is not None:
            _OBJECT.check(f"{path}.parameters", tool["parameters"])


def _check_item(item: Json, path: str, dialect: Dialect) -> None:
    """An item that a client brings. Raises ApiError 400."""
    kinds = ("message", "function_call", "function_call_output")
    kind = member(item, "type", path, Rule("a string", options=kinds))
    if item.get("id") is not None:
        _STRING.check(f"{path}.id", item["id"])
    if kind == "function_call":
        for name in ("name", "arguments"):
            member(item, name, path, _STRING)
        return
    if kind == "function_call_output":
        for name in ("call_id", "output"):
            member(item, name, path, _STRING)
        return
    roles = ("user", "assistant", "system")
    role = member(item, "role", path, Rule("a string", options=roles))
    parts = {
        "user": _USER_PARTS,
        "system": ("input_text",),
        "assistant": (dialect.text, dialect.audio),
    }
    content = member(item, "content", path, _ARRAY)
    each(content, f"{path}.content", lambda part, where: _check_part(part, where, parts[role]))


def _check_part(part: Json, path: str, options: tuple[str, ...]) -> None:
    kind = member(part, "type", path, Rule("a string", options=options))
    needed = {"input_text": "text", "input_audio": "audio", "input_image": "image_url"}
    if kind in needed:
        member(part, needed[kind], path, _STRING)


def _item(asked: Json) -> Json:
    """An item as the conversation keeps it: without its audio."""
    head = {"id": new_id("item_"), "object": "realtime.item", "status": "completed"}
    item: Json = {**head, **{name: value for name, value in asked.items() if value is not None}}
    if item["type"] == "message":
        item["content"] = [
            {name: value for name, value in part.items() if name != "audio"}
            for part in item["content"]
        ]
    return item


def _as_chat(options: Json, items: list[Json]) -> Json:
    """The conversation as a chat request."""
    messages = [_message(item) for item in items]
    said = [message for message in messages if message is not None]
    if options.get("instructions"):
        said.insert(0, {"role": "system", "content": options["instructions"]})
    if not any(message["role"] != "system" for message in said):
        said.append({"role": "user", "content": ""})
    asked: Json = {"model": options["model"], "messages": said}
    most = options.get("max_output_tokens", options.get("max_response_output_tokens", "inf"))
    if most != "inf":
        asked["max_completion_tokens"] = most
    tools = [_tool(tool) for tool in options["tools"] if tool["type"] == "function"]
    choice = options.get("tool_choice", "auto")
    if not tools:
        return asked
    if isinstance(choice, dict):
        named = choice.get("name")
        found = [tool for tool in tools if tool["function"]["name"] == named]
        return {**asked, "tools": tools, "tool_choice": found[0] if found else "auto"}
    return {**asked, "tools": tools, "tool_choice": choice}


def _tool(tool: Json) -> Json:
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _message(item: Json) -> Json | None:
    if item["type"] == "function_call_output":
        return {"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]}
    if item["type"] != "message":
        return None
    found = [part.get("text") or part.get("transcript") or "" for part in item["content"]]
    return {"role": item["role"], "content": " ".join(map(str, found))}
