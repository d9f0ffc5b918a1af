"""The hub, requests: what a conversation with a model says, whatever format it came in.

Every format parses its requests into a Conversation and renders a Conversation into its own, so
that any client reaches any provider. Content that a format cannot express is a FormatError; tuning
knobs that it does not know are dropped and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]
MediaKind = Literal["image", "audio", "video", "file"]


@dataclass(frozen=True, slots=True)
class Text:
    """Something said."""

    text: str
    cache: str | None = None
    """The prompt may be cached up to here: "" for the provider's usual lifetime, or such as 1h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An image, sound, film or document: one of `data`, `url` and `file_id` is set."""

    kind: MediaKind
    data: str = ""
    """Base64."""
    url: str = ""
    """Where the provider finds it: https, gs, s3 or a provider's own."""
    file_id: str = ""
    """Of a file that was uploaded to the provider."""
    media_type: str = ""
    """Such as image/png; "" where it is not known."""
    name: str = ""
    """The file's name."""
    detail: str = ""
    """OpenAI's `detail` of an image: low, high or auto."""
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the model thought before it spoke."""

    text: str
    signature: str = ""
    """The provider's proof that the thought is its own; opaque."""
    redacted: str = ""
    """In place of the text: a thought that only the provider can read; opaque."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool to be called."""

    id: str
    name: str
    arguments: str = "{}"
    """JSON text of an object."""
    signature: str = ""
    """Gemini's thought signature, which has to come back with the call; opaque."""
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered. Stands in a message of the user."""

    call_id: str
    content: tuple[Text | Media, ...] = ()
    name: str = ""
    """The tool's name, which some formats want; "" where it was not told (see `named_results`)."""
    is_error: bool = False
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declined, in its own words."""

    text: str


Block = Text | Media | Thinking | ToolCall | ToolResult | Refusal


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, or a part of one: neighbours of the same role may be one message elsewhere.

    system: Text only, wherever in the conversation it stands (OpenAI's developer role too). user:
    Text, Media, ToolResult. assistant: Text, Media, Thinking, ToolCall, Refusal. In the order in
    which the model sees them.
    """

    role: Role
    blocks: tuple[Block, ...]
    name: str = ""
    """Who speaks, where several users or assistants do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may ask for."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] | None = None
    """JSON Schema of an object; None for a function without parameters."""
    strict: bool | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """auto: the model decides; none; required: at least one; tool: the one called `name`."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """The answer has to be JSON: any object, or one that fits `schema`."""

    schema: Mapping[str, object] | None = None
    """None: any JSON object."""
    name: str = ""
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How much the model may think. What is None was not said."""

    effort: str | None = None
    """none, minimal, low, medium, high or xhigh, in OpenAI's words."""
    budget: int | None = None
    """Tokens; 0: no thinking; -1: as many as the model likes."""
    visible: bool | None = None
    """Whether the client wants to see the thoughts, where that is a choice."""


# Google's own table for OpenAI clients: https://ai.google.dev/gemini-api/docs/openai#thinking.
# The other formats follow it, so that one effort is the same budget everywhere.
BUDGETS: Mapping[str, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
}
"""Tokens of thinking for an effort, for formats that count tokens."""


def effort(budget: int) -> str:
    """The effort that a budget of tokens comes nearest to, from below."""
    if budget < 0:
        return "medium"
    if budget == 0:
        return "none"
    names = ("low", "medium", "high")
    return next((name for name in reversed(names) if budget >= BUDGETS[name]), "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One request for text. Use `dataclasses.replace` to change it."""

    messages: tuple[Message, ...]
    model: str = ""
    """As the request named it; "" where it did not."""
    stream: bool = False
    wants_usage: bool = False
    """The client wants the usage at the end of its stream. Formats that always tell it set this."""
    tools: tuple[Tool, ...] = ()
    native_tools: tuple[Mapping[str, object], ...] = ()
    """Entries of the request's `tools` that are no functions, such as web search, as they came.
    Whoever renders passes on those of its own format, and raises FormatError for others."""
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    reasoning: Reasoning | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    """Tuning knobs that were said (never null), under OpenAI's names: `temperature`, `top_p`,
    `top_k`, `max_tokens` (whatever the format calls it), `stop` (always a list of texts), `seed`,
    `n`, `presence_penalty`, `frequency_penalty`, `logit_bias`, `logprobs`, `top_logprobs`, `user`,
    `metadata`, `service_tier`, `suffix`, `echo`, `best_of` ... Whatever else a request had at its
    top level stands here too, under its own name: a format that knows that name passes it on (as
    Gemini does `safetySettings`), another one drops and names it."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """`extra_body`: members for the provider's request as it is sent, merged in last."""
    is_completion: bool = False
    """A prompt to be continued (OpenAI's completions): one message of the user with one Text."""

    @property
    def system(self) -> tuple[Text, ...]:
        """All system texts in their order, for formats that keep them apart from the messages."""
        found = (message.blocks for message in self.messages if message.role == "system")
        return tuple(block for blocks in found for block in blocks if isinstance(block, Text))

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without system ones, neighbours of one role merged into one."""
        return tuple(merged(m for m in self.messages if m.role != "system"))

    @property
    def prompt(self) -> str:
        """All texts as one, for formats that only continue a text."""
        return "\n\n".join(
            block.text
            for message in self.messages
            for block in message.blocks
            if isinstance(block, Text | Refusal)
        )

    @property
    def has_cache_points(self) -> bool:
        """Whether something is to be cached: what formats without that name `cache_control`."""
        blocks = (block for message in self.messages for block in message.blocks)
        return any(getattr(each, "cache", None) is not None for each in (*blocks, *self.tools))

    @property
    def has_names(self) -> bool:
        """Whether somebody's name is told: what formats without any name `name`."""
        return any(message.name for message in self.messages)

    def without(self, names: Iterable[str]) -> Conversation:
        """This conversation without these settings."""
        gone = frozenset(names)
        kept = {name: value for name, value in self.settings.items() if name not in gone}
        return replace(self, settings=kept)


class Rendered(NamedTuple):
    """A request in a provider's format."""

    body: dict[str, object]
    dropped: tuple[str, ...] = ()
    """Names of settings that could not be carried over, as they stand in `settings`; also
    `reasoning_effort`, `response_format`, `parallel_tool_calls`, `tool_choice` where the format
    has nothing like them."""


def with_extra(body: Mapping[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    """`body` with the members of `extra_body`, objects put into objects of the same name."""
    whole = dict(body)
    for name, value in extra.items():
        own = whole.get(name)
        both = isinstance(own, dict) and isinstance(value, dict)
        whole[name] = with_extra(own, value) if both else value  # type: ignore[arg-type]
    return whole


def merged(messages: Iterable[Message]) -> Iterator[Message]:
    """Neighbours of the same role and name as one message."""
    run: list[Message] = []
    for message in messages:
        if run and (run[0].role, run[0].name) != (message.role, message.name):
            yield _joined(run)
            run = []
        run.append(message)
    if run:
        yield _joined(run)


def _joined(run: list[Message]) -> Message:
    if len(run) == 1:
        return run[0]
    return replace(run[0], blocks=tuple(block for message in run for block in message.blocks))


def named_results(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages with each ToolResult's `name` filled in from the call it answers."""
    names: dict[str, str] = {}
    for message in messages:
        blocks: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolCall):
                names[block.id] = block.name
            elif isinstance(block, ToolResult) and not block.name:
                block = replace(block, name=names.get(block.call_id, ""))
            blocks.append(block)
        yield replace(message, blocks=tuple(blocks))
