"""Gemini Live: the messages of a BidiGenerateContent session, as far as a gateway looks at them.

https://ai.google.dev/api/live and, of Vertex AI,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/multimodal-live.

Messages are JSON objects, in text or in binary frames. The client's first one is the setup, which
names the model; nothing of it can be changed later, so a second one is Google's to refuse. Most of
the others are pieces of sound, and are not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import usage as gemini_usage
from kong_ai_proxy.formats.usage import Usage

OPERATION = "BidiGenerateContent"

Message = str | bytes
"""A message's text, or the bytes of a binary one."""

# A member's name may be written with these, and Google's parser takes it without quotes too.
_ESCAPE = re.compile(r"""\\[^"\\/bfnrt]""")
_ESCAPE_BYTES = re.compile(_ESCAPE.pattern.encode())
# A zero byte is in no JSON but that of other encodings.
_OBJECT = re.compile(r"[ \t\r\n]*\{(?!\x00)")
_OBJECT_BYTES = re.compile(_OBJECT.pattern.encode())

_PLACE = re.compile(r"projects/[^/]+/locations/[^/]+/")
_COLLECTIONS = ("publishers/google/models/", "google/", "models/")


def plain(model: str) -> str:
    """A model's name without the collection, and the place on Vertex AI, that it is written with:
    `x` of `models/x` and of `projects/p/locations/l/publishers/google/models/x`."""
    found = _PLACE.match(model)
    name = model[found.end() :] if found else model
    for collection in _COLLECTIONS:
        if name.startswith(collection):
            return name.removeprefix(collection)
    return name


class Setup:
    """What one session's setup may say: a filter for the client's messages."""

    __slots__ = ("_alias", "_name", "_resource", "model")

    def __init__(
        self, resource: Callable[[str], str], name: str | None = None, alias: str | None = None
    ) -> None:
        """`name`, where there is one, is the model that it has to be, which a client may also call
        `alias`. `resource` is how the provider calls a model; it raises FormatError for what is no
        model's name."""
        self._resource = resource
        self._name = name
        self._alias = alias
        self.model: str | None = None
        """The name of the session's model, once the setup has passed."""

    def feed(self, message: Message) -> Message:
        """What goes on of a client's message. Raises FormatError for one that must not."""
        if not _is_object(message):
            raise FormatError("expected a JSON object in UTF-8 in each message")
        if not _may_be_setup(message):
            return message
        try:
            parsed = orjson.loads(message)
        except orjson.JSONDecodeError:
            raise FormatError("expected a JSON object in each message") from None
        if not _has(parsed, "setup"):
            return message
        # Written anew, so that it says everything once.
        try:
            written = orjson.dumps({**parsed, "setup": self._checked(parsed["setup"])})
        except orjson.JSONEncodeError:  # deeper than it writes, though it has read it
            raise FormatError("setup: nested too deeply") from None
        return written.decode() if isinstance(message, str) else written

    def _checked(self, setup: object) -> dict[str, object]:
        if not isinstance(setup, dict):
            raise FormatError("setup: expected an object")
        named = setup["model"] if _has(setup, "model") else None
        if named is not None and not isinstance(named, str):
            raise FormatError("setup.model: expected a string")
        if named and self._name and plain(named) not in self._names():
            raise FormatError(f"cannot use own model - must be: {self._name}")
        model = self._name or named
        if not model:  # Google says what is missing
            return setup
        self.model = plain(model)
        return {**setup, "model": self._resource(model)}

    def _names(self) -> set[str]:
        return {plain(name) for name in (self._name, self._alias) if name}


def _is_object(message: Message) -> bool:
    if isinstance(message, str):
        return _OBJECT.match(message) is not None
    return _OBJECT_BYTES.match(message) is not None


def _may_be_setup(message: Message) -> bool:
    """Whether it has to be parsed to know. Case does not count, for a server of another kind may
    not mind it either; a plain search is many times as fast as a pattern without case. (Without
    case there is another s, the long one.)"""
    if isinstance(message, str):
        return "etup" in message.lower() or _ESCAPE.search(message) is not None
    return b"etup" in message.lower() or _ESCAPE_BYTES.search(message) is not None


def _has(value: Mapping[str, object], name: str) -> bool:
    """Whether there is a member of that name. Raises FormatError for another spelling of it, which
    some server might take for it."""
    for each in value:
        if each != name and each.casefold().strip(" \t\r\n\0") == name:
            raise FormatError(f"unknown member {each!r}, did you mean {name!r}?")
    return name in value


def usage(message: Mapping[str, object]) -> Usage | None:
    """The counts that come with a server's message; None for a message without.

    They are those of one turn, whose prompt is all that the session holds so far, and is paid for
    again with each: https://ai.google.dev/gemini-api/docs/live-api/best-practices#pricing-billing.
    So a session has used the sum of them; that this is what is billed was found by others too:
    https://discuss.ai.google.dev/t/173248. The Gemini API has `responseTokenCount` where Vertex AI
    has `candidatesTokenCount`.
    """
    told = message.get("usageMetadata")
    if not isinstance(told, dict):
        return None
    return gemini_usage.usage(
        {
            **told,
            "candidatesTokenCount": told.get("responseTokenCount")
            or told.get("candidatesTokenCount"),
            "candidatesTokensDetails": told.get("responseTokensDetails")
            or told.get("candidatesTokensDetails"),
        }
    )
