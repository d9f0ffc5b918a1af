"""What the events of OpenAI's streamed answers say.

Chat and completions send chunks with `choices`; the other streams send events with a `type`, those
of assistants with the event's name in its place.
Events: https://platform.openai.com/docs/api-reference (chat, responses, images, audio, assistants).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.errors import error_of
from kong_ai_proxy.formats.openai.usage import usage
from kong_ai_proxy.formats.sse import Event
from kong_ai_proxy.formats.usage import Usage

DONE = b"[DONE]"

TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
"""Members of a delta that hold text. Reasoning has two names, neither of them OpenAI's."""
_CONTENT = (*TEXTS, "tool_calls", "function_call", "audio", "reasoning_details")
_ENDS_WITH_CONTENT = (
    ".partial_image",
    ".done",
    ".completed",
    ".incomplete",
    ".requires_action",
)
_FAILED = frozenset({"response.failed", "thread.run.failed"})
_MAX_ERROR = 500

_LEVELS = 12
"""Containers in each other in one member of a chunk; log probabilities have eight."""
# Possessive all through, so that it takes one pass whatever comes.
_SPACE = rb"[ \t]*+"
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _container(levels: int) -> bytes:
    inner = rb"" if levels == 1 else rb"|" + _container(levels - 1)
    return rb'[\[{](?:[^"{}\[\]\r\n]++|' + _TEXT + inner + rb")*+[\]}]"


_VALUE = rb"(?:" + _TEXT + rb'|[^"{}\[\],\s]++|' + _container(_LEVELS) + rb")"
_OTHER = rb'(?!"usage")' + _TEXT + _SPACE + rb":" + _SPACE + _VALUE + _SPACE + rb"," + _SPACE
_FIRST = re.compile(
    rb"\{" + _SPACE + rb"(?:" + _OTHER + rb')*+("usage"' + _SPACE + rb":" + _SPACE + rb"null)"
    rb"(?:" + _SPACE + rb"(,)" + _SPACE + rb"|(?=" + _SPACE + rb"\}))"
)
_NULL_USAGE = b',"usage":null'
_LAST = re.compile(rb',"usage":null(?:,"\w*+":(?:"\w*+"|null|true|false|[0-9.]++))*+\}\n\n\Z')
_DATA_LINE = re.compile(rb"(?:^(?:\xef\xbb\xbf)?|(?<=[\r\n]))data: ?+")


_WRITTEN = re.compile(
    rb'"(?:content|text|refusal|reasoning|reasoning_content|arguments)": ?'
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
)


class MessageError(ValueError):
    """The data of an event is not a JSON object."""


class Message:
    """The data of one event, parsed."""

    __slots__ = ("kind", "value")

    def __init__(self, event: Event) -> None:
        """`event` has data. Raises MessageError."""
        try:
            value = orjson.loads(event.data or b"")
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise MessageError("the data of an event is not a JSON object")
        self.value: dict[str, object] = value
        kind = value.get("type")
        self.kind = kind if isinstance(kind, str) else event.name.decode(errors="replace")
        """The `type`, or else the event's name; "" for a chunk of chat or completions."""

    @property
    def choices(self) -> list[Mapping[str, object]]:
        """The choices of a chunk; some providers send null for none."""
        choices = self.value.get("choices")
        return _objects(choices) if isinstance(choices, list) else []

    @property
    def has_content(self) -> bool:
        """Whether the model said, thought, called or drew something."""
        if self.choices:
            return any(_has_content(choice) for choice in self.choices)
        if self.kind.endswith(".delta"):
            return any(self.value.get(name) for name in ("delta", "audio"))
        return self.kind.endswith(_ENDS_WITH_CONTENT)

    @property
    def error(self) -> str | None:
        """What went wrong, where the event says that something did."""
        value = self.value
        if self.kind == "error":
            return error_text(value.get("error") or value, value.get("message"))
        if self.kind in _FAILED:
            failed = self.response.get("error") or value.get("last_error")
            return error_text(failed or self.kind)
        return error_text(value.get("error"), value.get("message"))

    @property
    def failed(self) -> ProviderError | None:
        """The same with its kind and status; None where only the text is known."""
        value = self.value
        nested = {"error": self.response.get("error") or value.get("last_error")}
        return error_of(nested if self.kind in _FAILED else value)

    @property
    def usage(self) -> Usage | None:
        """The tokens of the answer so far. A step of a run counts in its run."""
        if self.kind.startswith("thread.run.step"):
            return None
        own = self.value.get("usage")
        answer = self.value if own is not None else self.response
        return usage(answer.get("usage"), answer.get("service_tier"))

    @property
    def model(self) -> str | None:
        """The model that answers."""
        model = self.value.get("model") or self.response.get("model")
        return model if isinstance(model, str) else None

    @property
    def response(self) -> Mapping[str, object]:
        """The response that an event of the responses API is about."""
        response = self.value.get("response")
        return response if isinstance(response, dict) else {}

    def without_usage(self) -> bytes:
        """The event without its member `usage`, which some tell beside the last choices."""
        kept = {name: value for name, value in self.value.items() if name != "usage"}
        return b"data: " + orjson.dumps(kept) + b"\n\n"

    @property
    def is_only_usage(self) -> bool:
        """Whether this is the chunk that `stream_options.include_usage` adds to a stream."""
        tells = isinstance(self.value.get("usage"), dict)
        return tells and not self.value.get("choices") and not self.value.get("error")


def delta(choice: Mapping[str, object]) -> Mapping[str, object]:
    """What a choice adds to its message. Some providers send it as a whole message."""
    found = choice.get("delta") or choice.get("message")
    return found if isinstance(found, dict) else {}


def tool_calls(added: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The pieces of tool calls in a delta."""
    calls = added.get("tool_calls")
    return _objects(calls) if isinstance(calls, list) else []


def error_text(error: object, message: object = None) -> str | None:
    """The text of an `error` member in any of the shapes that providers give it; None for none."""
    if not error:
        return None
    if isinstance(error, dict):
        known = (error.get(name) for name in ("message", "code", "type"))
        text = next((each for each in known if isinstance(each, str) and each), "unknown error")
    elif isinstance(error, str):
        text = error
    else:
        text = message if isinstance(message, str) and message else "unknown error"
    return text[:_MAX_ERROR]


def characters(events: bytes) -> int:
    """About how many characters the model wrote in these chunks of chat or completions, thoughts
    and arguments of tools included."""
    texts = _WRITTEN.findall(events)
    try:
        return sum(map(len, orjson.loads(b'["' + b'","'.join(texts) + b'"]')))
    except orjson.JSONDecodeError:
        return sum(map(len, texts))


def without_null_usage(raw: bytes) -> bytes:
    """An event's bytes without the top-level member `"usage":null` of its data.

    Only a top-level member can be hit. `_LAST` matches back from the brace that ends the data, over
    members whose values are no containers: they are in the object that this brace ends. `_FIRST`
    goes through the members from the first brace on and stops at one called usage. What neither
    goes through, such as data over several lines, stays as it is.
    """
    at = raw.rfind(_NULL_USAGE)
    if at < 0 and b'"usage"' not in raw:
        return raw
    start = 6 if raw.startswith(b"data: {") and raw.find(b"\n") == len(raw) - 2 else -1
    if at > 0 and start > 0 and _LAST.match(raw, at):
        return raw[:at] + raw[at + len(_NULL_USAGE) :]
    start = _data_start(raw) if start < 0 else start
    found = _FIRST.match(raw, start) if start >= 0 else None
    return _cut(raw, found) if found else raw


def _data_start(raw: bytes) -> int:
    """Where the data of an event begins; -1 when it is on no line or on several."""
    lines = [line.end() for line in _DATA_LINE.finditer(raw)]
    return lines[0] if len(lines) == 1 else -1


def _cut(raw: bytes, found: re.Match[bytes]) -> bytes:
    """`raw` without the member found and one of the commas beside it."""
    start, end = found.start(1), found.end()
    if not found[2]:  # it is the last member
        start = len(raw[:start].rstrip(b" \t"))
        start -= raw[start - 1 : start] == b","
    return raw[:start] + raw[end:]


def _objects(values: list[object]) -> list[Mapping[str, object]]:
    return [value for value in values if isinstance(value, dict)]


def _has_content(choice: Mapping[str, object]) -> bool:
    if choice.get("text"):
        return True
    added = delta(choice)
    return any(added.get(name) for name in _CONTENT)
