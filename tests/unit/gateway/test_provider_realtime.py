"""Realtime sessions of the stand-in provider, of today's API and of the beta.

OpenAI's client speaks realtime with a library of its own choice; here aiohttp carries the events
and the client's models check every one of them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pydantic
import pytest
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent

from kong_ai_proxy.gateway.provider import Provider
from kong_ai_proxy.gateway.provider.realtime_session import Session

_EVENTS: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeServerEvent)
_BETA_EVENTS: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(BetaServerEvent)
_BETA = {"OpenAI-Beta": "realtime=v1"}
_MODEL = "gpt-4o-realtime-preview"
_SECOND = base64.b64encode(bytes(48000)).decode()
_WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


class _Client:
    """A client that checks what it hears."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, beta: bool) -> None:
        self.socket = socket
        self._events = _BETA_EVENTS if beta else _EVENTS

    async def say(self, kind: str, **event: Any) -> None:
        await self.socket.send_json({"type": kind, **event})

    async def hear(self) -> dict[str, Any]:
        event: dict[str, Any] = await self.socket.receive_json(timeout=10)
        assert event["event_id"].startswith("event_")
        checked = self._events.validate_python(event)
        assert checked.type == event["type"]
        return event

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """What is heard up to an event of that kind."""
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            assert heard[-1]["type"] != "error", heard[-1]
            heard.append(await self.hear())
        return heard

    async def update(self, **session: Any) -> dict[str, Any]:
        await self.say("session.update", session=session)
        updated: dict[str, Any] = (await self.until("session.updated"))[-1]["session"]
        return updated

    async def ask(self, question: str) -> None:
        part = {"type": "input_text", "text": question}
        item = {"type": "message", "role": "user", "content": [part]}
        await self.say("conversation.item.create", item=item)
        begun = await self.hear()
        if begun["type"] == "conversation.item.added":
            assert (await self.hear())["type"] == "conversation.item.done"


@contextlib.asynccontextmanager
async def _session(
    *, beta: bool = False, api_key: str | None = None, **options: Any
) -> AsyncIterator[_Client]:
    provider = await Provider.start(api_key=api_key)
    url = f"{provider.url}/realtime?model={_MODEL}"
    try:
        async with (
            aiohttp.ClientSession(headers=_BETA if beta else {}) as http,
            http.ws_connect(url, **options) as socket,
        ):
            yield _Client(socket, beta)
    finally:
        await provider.stop()


def _kinds(events: list[dict[str, Any]]) -> list[str]:
    """Each kind once, in order."""
    return list(dict.fromkeys(event["type"] for event in events))


async def test_a_session_begins_with_what_it_is() -> None:
    async with _session() as client:
        created = await client.hear()
    assert created["type"] == "session.created"
    assert created["session"]["model"] == _MODEL
    assert created["session"]["id"].startswith("sess_")


async def test_a_session_can_be_changed() -> None:
    async with _session() as client:
        session = await client.update(
            type="realtime",
            instructions="Be brief",
            output_modalities=["text"],
            audio={"output": {"voice": "marin"}},
        )
    assert session["instructions"] == "Be brief"
    assert session["audio"]["output"]["voice"] == "marin"
    assert session["audio"]["output"]["speed"] == 1.0
    assert session["audio"]["input"]["format"]["type"] == "audio/pcm"


async def test_a_text_response_comes_in_order() -> None:
    async with _session() as client:
        await client.update(type="realtime", output_modalities=["text"])
        await client.ask("Hello there")
        await client.say("response.create")
        events = await client.until("response.done")
    assert _kinds(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    words = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    response = events[-1]["response"]
    assert "Hello there" in "".join(words)
    assert response["output"][0]["content"] == [{"type": "output_text", "text": "".join(words)}]
    assert response["status"] == "completed"
    usage = response["usage"]
    assert usage["output_tokens"] == len(words)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_the_beta_has_its_own_names() -> None:
    async with _session(beta=True) as client:
        assert [(await client.hear())["type"] for _ in range(2)] == [
            "session.created",
            "conversation.created",
        ]
        await client.update(modalities=["text"], voice="echo")
        await client.ask("Hello there")
        await client.say("response.create")
        events = await client.until("response.done")
    assert _kinds(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.text.delta",
        "response.text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    assert events[-1]["response"]["output"][0]["content"][0]["type"] == "text"


@pytest.mark.parametrize("beta", [False, True])
async def test_a_spoken_response_has_a_transcript_and_sound(beta: bool) -> None:
    async with _session(beta=beta) as client:
        await client.say("response.create", response={"instructions": "Say hello"})
        events = await client.until("response.done")
    name = "response.audio" if beta else "response.output_audio"
    sound = [base64.b64decode(e["delta"]) for e in events if e["type"] == f"{name}.delta"]
    words = [e["delta"] for e in events if e["type"] == f"{name}_transcript.delta"]
    assert len(sound) == len(words)
    assert {len(beep) for beep in sound} == {4800}
    done = next(e for e in events if e["type"] == f"{name}_transcript.done")
    assert done["transcript"] == "".join(words)
    assert events[-1]["response"]["usage"]["output_token_details"]["audio_tokens"] > 0


async def test_a_function_is_called_and_its_result_is_answered() -> None:
    async with _session() as client:
        await client.update(type="realtime", output_modalities=["text"], tools=[_WEATHER])
        await client.ask("What is the weather in Paris?")
        await client.say("response.create")
        events = await client.until("response.done")
        call = events[-1]["response"]["output"][0]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        await client.say("conversation.item.create", item=output)
        await client.until("conversation.item.done")
        await client.say("response.create")
        answer = (await client.until("response.done"))[-1]["response"]["output"][0]
    assert "response.function_call_arguments.delta" in _kinds(events)
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    assert "sunny" in answer["content"][0]["text"]


@pytest.mark.parametrize("beta", [False, True])
async def test_committed_audio_becomes_an_item(beta: bool) -> None:
    async with _session(beta=beta) as client:
        if beta:
            await client.update(input_audio_transcription={"model": "whisper-1"})
        else:
            transcription = {"transcription": {"model": "whisper-1"}}
            await client.update(type="realtime", audio={"input": transcription})
        for _ in range(2):
            await client.say("input_audio_buffer.append", audio=_SECOND)
        await client.say("input_audio_buffer.commit")
        events = await client.until("conversation.item.input_audio_transcription.completed")
        await client.say("response.create")
        done = (await client.until("response.done"))[-1]
    assert events[0]["type"] == "input_audio_buffer.committed"
    assert events[0]["item_id"] == events[-1]["item_id"]
    assert events[-1]["transcript"] == "2.0 seconds of audio"
    assert "2.0 seconds of audio" in done["response"]["output"][0]["content"][0]["transcript"]
    assert done["response"]["usage"]["input_token_details"]["audio_tokens"] == 20


async def test_a_response_can_be_cancelled() -> None:
    provider = await Provider.start(word_seconds=0.01)
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{provider.url}/realtime?model=m") as socket,
        ):
            client = _Client(socket, beta=False)
            await client.hear()
            await client.say("response.create")
            await client.until("response.output_audio.delta")
            await client.say("response.create")
            refused = await client.hear()
            while refused["type"] != "error":
                refused = await client.hear()
            await client.say("response.cancel")
            done = (await client.until("response.done"))[-1]["response"]
    finally:
        await provider.stop()
    assert refused["error"]["code"] == "conversation_already_has_active_response"
    assert (done["status"], done["output"][0]["status"]) == ("cancelled", "incomplete")
    assert done["status_details"]["reason"] == "client_cancelled"


async def test_a_limit_cuts_a_response() -> None:
    async with _session() as client:
        await client.say("response.create", response={"max_output_tokens": 3})
        done = (await client.until("response.done"))[-1]["response"]
    assert (done["status"], done["usage"]["output_token_details"]["text_tokens"]) == (
        "incomplete",
        3,
    )


async def test_a_response_outside_the_conversation_leaves_it_alone() -> None:
    async with _session() as client:
        part = {"type": "input_text", "text": "Only this"}
        asked = {
            "conversation": "none",
            "output_modalities": ["text"],
            "input": [{"type": "message", "role": "user", "content": [part]}],
        }
        await client.say("response.create", response=asked)
        events = await client.until("response.done")
        item = events[-1]["response"]["output"][0]
        await client.say("conversation.item.retrieve", item_id=item["id"])
        refused = await client.hear()
    assert "conversation.item.added" not in _kinds(events)
    assert "Only this" in item["content"][0]["text"]
    assert refused["error"]["code"] == "item_not_found"


async def test_items_are_placed_retrieved_and_deleted() -> None:
    async with _session() as client:
        await client.hear()
        for key, after in (("b", None), ("a", "root"), ("c", "b")):
            part = {"type": "input_text", "text": key}
            item = {"id": key, "type": "message", "role": "user", "content": [part]}
            await client.say("conversation.item.create", item=item, previous_item_id=after)
            added, _ = await client.hear(), await client.hear()
            assert added["previous_item_id"] == {"a": None, "b": None, "c": "b"}[key]
        await client.say("conversation.item.retrieve", item_id="a")
        assert (await client.hear())["item"]["content"][0]["text"] == "a"
        await client.say("conversation.item.delete", item_id="a")
        assert (await client.hear())["type"] == "conversation.item.deleted"
        await client.say("conversation.item.retrieve", item_id="a")
        assert (await client.hear())["error"]["param"] == "item_id"


def _said(event: Any) -> dict[str, Any]:
    """The error that a session answers an event with."""
    session = Session("m", ga=True)
    (answer,) = session.receive(event if isinstance(event, str) else json.dumps(event))
    _EVENTS.validate_python(answer)
    assert answer["type"] == "error"
    error: dict[str, Any] = answer["error"]
    return error


@pytest.mark.parametrize(
    ("event", "param", "code"),
    [
        ("{", None, "invalid_json"),
        ("[]", "event", "invalid_type"),
        ({}, "type", "invalid_value"),
        ({"type": "session.upgrade"}, "type", "invalid_value"),
        ({"type": "session.update"}, "event.session", "missing_required_parameter"),
        (
            {"type": "session.update", "session": {}},
            "session.type",
            "missing_required_parameter",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "modalities": ["text"]}},
            "session.modalities",
            "unknown_parameter",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "model": "other"}},
            "session.model",
            "session_model_mismatch",
        ),
        (
            {
                "type": "session.update",
                "session": {"type": "realtime", "output_modalities": ["text", "audio"]},
            },
            "session.output_modalities",
            "invalid_value",
        ),
        (
            {
                "type": "session.update",
                "session": {"type": "realtime", "audio": {"input": {"format": {"type": "x"}}}},
            },
            "session.audio.input.format.type",
            "invalid_value",
        ),
        (
            {"type": "session.update", "session": {"type": "realtime", "audio": {"output": 5}}},
            "session.audio.output",
            "invalid_type",
        ),
        ({"type": "input_audio_buffer.append", "audio": "***"}, "audio", "invalid_value"),
        (
            {"type": "input_audio_buffer.commit"},
            None,
            "input_audio_buffer_commit_empty",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "note"}},
            "item.type",
            "invalid_value",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user"}},
            "item.content",
            "missing_required_parameter",
        ),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_id", "item_not_found"),
        ({"type": "response.cancel"}, None, "response_cancel_not_active"),
        (
            {"type": "response.create", "response": {"max_output_tokens": 0}},
            "response.max_output_tokens",
            "integer_below_min_value",
        ),
    ],
)
def test_a_wrong_event_is_answered_with_an_error(event: Any, param: str | None, code: str) -> None:
    error = _said(event)
    assert (error["param"], error["code"]) == (param, code)


def test_nulls_leave_what_must_be_there() -> None:
    session = Session("m", ga=True)
    told = {"type": "realtime", "output_modalities": None, "audio": {"input": None}}
    (updated,) = session.receive(json.dumps({"type": "session.update", "session": told}))
    assert updated["session"]["output_modalities"] == ["audio"]
    assert updated["session"]["audio"]["input"]["format"]["type"] == "audio/pcm"


def test_an_error_names_the_event_it_is_about() -> None:
    assert _said({"type": "nothing", "event_id": "mine"})["event_id"] == "mine"


def test_a_conversation_is_bounded() -> None:
    session = Session("m", ga=True)
    part = {"type": "input_text", "text": "x"}
    item = {"type": "message", "role": "user", "content": [part]}
    event = json.dumps({"type": "conversation.item.create", "item": item})
    first = session.receive(event)[0]["item"]["id"]
    for _ in range(1000):
        session.receive(event)
    asked = json.dumps({"type": "conversation.item.retrieve", "item_id": first})
    assert session.receive(asked)[0]["type"] == "error"


# -- the handshake ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [
        ((), None),
        (("realtime",), "realtime"),
        (("realtime", "openai-insecure-api-key.k", "openai-beta.realtime-v1"), "realtime"),
        (("other",), None),
    ],
)
async def test_the_subprotocol_is_realtime(protocols: tuple[str, ...], chosen: str | None) -> None:
    async with _session(protocols=protocols) as client:
        assert client.socket.protocol == chosen


async def test_the_beta_can_be_asked_for_by_subprotocol() -> None:
    async with _session(protocols=("realtime", "openai-beta.realtime-v1")) as client:
        created = await client.socket.receive_json()
    assert "modalities" in created["session"]


@pytest.mark.parametrize(
    "options",
    [
        {"protocols": ("realtime", "openai-insecure-api-key.right")},
        {"headers": {"Authorization": "Bearer right"}},
    ],
)
async def test_the_key_may_come_in_a_header_or_a_subprotocol(options: dict[str, Any]) -> None:
    async with _session(api_key="right", **options) as client:
        assert (await client.hear())["type"] == "session.created"


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("model=m", {}, 401, None),
        ("model=m", {"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        (
            "model=m",
            {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.wrong"},
            401,
            "invalid_api_key",
        ),
        ("", {"Authorization": "Bearer right"}, 400, None),
        ("model=error-429", {"Authorization": "Bearer right"}, 429, "rate_limit_exceeded"),
    ],
)
async def test_a_refused_handshake_is_json(
    query: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    provider = await Provider.start(api_key="right")
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{provider.url}/realtime?{query}", headers={**upgrade, **headers}) as answer,
        ):
            assert answer.status == status
            assert (await answer.json())["error"]["code"] == code
    finally:
        await provider.stop()


async def test_without_an_upgrade_it_asks_for_one() -> None:
    provider = await Provider.start()
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{provider.url}/realtime?model=m") as answer,
        ):
            assert answer.status == 426
            assert answer.headers["Upgrade"] == "websocket"
    finally:
        await provider.stop()


async def test_a_session_ends_when_the_provider_stops() -> None:
    provider = await Provider.start()
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{provider.url}/realtime?model=m") as socket,
    ):
        await socket.receive_json()
        last, _ = await asyncio.gather(socket.receive(), provider.stop())
    assert (last.type, last.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
