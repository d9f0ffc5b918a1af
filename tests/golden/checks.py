"""Whether what happens is what a fixture says."""

from __future__ import annotations

import orjson

from kong_ai_proxy.formats.json_object import JsonObject
from tests.golden import credentials, fixture
from tests.golden.fixture import Golden


def same_json(found: object, expected: object) -> None:
    """Equal, and numbers of the same kind. Reports a readable difference."""
    assert found == expected
    options = orjson.OPT_SORT_KEYS
    assert orjson.dumps(found, option=options) == orjson.dumps(expected, option=options)


def request(golden: Golden) -> None:
    """What the provider gets is what the fixture says."""
    attempt, upstream = golden.attempt()
    if isinstance(attempt._case.content, JsonObject):  # from which another target's attempt starts
        assert attempt._case.content.value == golden.request["body"]
    assert upstream.method == golden.upstream.get("method", "POST")
    assert fixture.url(upstream) == golden.upstream["url"]
    headers = golden.upstream.get("headers", {})
    for name, value in headers.items():
        assert upstream.set_headers.get(name) == value
    credentials.check(golden.config, upstream, headers)
    if golden.upstream["body"] == "unchanged":
        assert upstream.body is None
    else:
        assert isinstance(upstream.body, bytes)
        same_json(orjson.loads(upstream.body), golden.upstream["body"])


def answer(golden: Golden) -> None:
    """What the client gets is what the fixture says."""
    played = golden.play()
    assert played.is_clean
    assert played.head.status == golden.client.get("status", 200)
    for name, value in golden.client.get("headers", {}).items():
        assert played.head.header(name) == value
    expected = golden.client
    if expected.get("body") == "unchanged":
        assert played.body == golden.answered
    elif "json" in expected:
        assert played.head.header("content-type") == "application/json"
        same_json(orjson.loads(played.body), expected["json"])
    else:
        kind = "sse" if "sse" in expected else "frames"
        assert played.head.header("content-type") == fixture.TYPES[kind]
        assert played.body.decode("utf-8", "replace") == fixture.body_bytes(expected).decode(
            "utf-8", "replace"
        )
    if golden.usage is not None:
        counted = played.attempt.usage
        assert counted is not None
        assert (counted.prompt_tokens, counted.completion_tokens) == golden.usage
