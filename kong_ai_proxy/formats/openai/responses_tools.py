"""OpenAI's Responses, tools: what a model may call, and by which names other providers know it.

https://platform.openai.com/docs/api-reference/responses/create, `tools` and the input items
`additional_tools`. Elsewhere there are only functions, whose names stand alone:

- A function of a namespace is called NAMESPACE__NAME, and what the namespace is for is said once,
  by the system.
- A custom tool, which takes any text, is a function with one parameter, `input`. Its grammar, where
  it has one, is told to the model, but nobody holds it to that.

In answers such calls have the client's own names and kinds again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kong_ai_proxy.formats.conversation import Message, Text, Tool, ToolCall, ToolChoice
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import (
    a_text,
    an_object,
    json_text,
    objects,
    objects_of,
    parsed,
    text_of,
    wrong,
)

Object = Mapping[str, object]

HOSTED = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "custom",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
"""Types of tools that are no functions: OpenAI runs them, or has calls of another kind for them."""

CALLS = ("function_call", "custom_tool_call")
RESULTS = ("function_call_output", "custom_tool_call_output")
"""Types of input items."""

_CALLABLE = ("function", "custom")
_MOST = 1024
_MOST_LETTERS = 64  # of a function's name, at nearly every provider
_INPUT = "input"
_CHOICE = (
    'tool_choice: expected one of "auto", "none", "required", or {"type": "function", "name": ...}'
)


class Own(NamedTuple):
    """What a client calls a function."""

    name: str
    namespace: str = ""
    is_custom: bool = False


@dataclass(slots=True)
class Tools:
    """All tools of a request."""

    functions: list[Tool] = field(default_factory=list)
    native: list[Object] = field(default_factory=list)
    """Those of other providers, as they came."""
    notes: list[Text] = field(default_factory=list)
    """What namespaces are for."""

    def add(self, tool: Object, where: str) -> None:
        """Raises FormatError for a tool that only OpenAI has."""
        kind = a_text(tool.get("type"), f"{where}.type")
        if kind in _CALLABLE:
            self._function(tool, where, "")
        elif kind == "namespace":
            self._namespace(tool, where)
        elif kind in HOSTED:
            raise FormatError(
                f"{where}.type: expected function: OpenAI's tool {kind} is not known to this "
                "provider; leave it out"
            )
        else:
            self.native.append(tool)

    def _namespace(self, tool: Object, where: str) -> None:
        name = a_text(tool.get("name"), f"{where}.name")
        for place, inner in objects(tool.get("tools"), f"{where}.tools"):
            if inner.get("type") not in _CALLABLE:
                wrong(f"{place}.type", "function or custom")
            self._function(inner, place, name)
        if description := text_of(tool, "description"):
            self.notes.append(Text(f"Functions called {_joined(name, '...')}: {description}"))

    def _function(self, tool: Object, where: str, namespace: str) -> None:
        name = called(a_text(tool.get("name"), f"{where}.name"), namespace)
        make = _custom if tool["type"] == "custom" else _function
        self.functions.append(make(tool, where, name))
        if len(self.functions) > _MOST:
            wrong("tools", f"at most {_MOST} functions")

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the system says of them."""
        return (Message("system", tuple(self.notes)),) if self.notes else ()


def read(body: Object) -> Tools:
    """The tools of a request, wherever they stand. Raises FormatError."""
    tools = Tools()
    for place, value in _places(body):
        for where, tool in objects(value, place):
            tools.add(tool, where)
    return tools


def _places(body: Object) -> Iterator[tuple[str, object]]:
    yield "tools", body.get("tools")
    said = body.get("input")
    for index, item in enumerate(said if isinstance(said, list) else ()):
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            yield f"input[{index}].tools", item.get("tools")


def _function(tool: Object, where: str, name: str) -> Tool:
    """Elsewhere a function that is not said to be strict is not, so that false need not be said."""
    parameters = tool.get("parameters")
    return Tool(
        name=name,
        description=text_of(tool, "description"),
        parameters=None if parameters is None else an_object(parameters, f"{where}.parameters"),
        strict=True if tool.get("strict") is True else None,
    )


def _custom(tool: Object, where: str, name: str) -> Tool:
    taken: dict[str, object] = {"type": "string"}
    grammar = an_object(tool.get("format") or {}, f"{where}.format")
    if definition := text_of(grammar, "definition"):
        kind = "regular expression" if grammar.get("syntax") == "regex" else "Lark grammar"
        taken["description"] = f"All of it has to match this {kind}:\n{definition}"
    parameters = {
        "type": "object",
        "properties": {_INPUT: taken},
        "required": [_INPUT],
        "additionalProperties": False,
    }
    return Tool(name=name, description=text_of(tool, "description"), parameters=parameters)


# ---- names


def called(name: str, namespace: str) -> str:
    """The name by which other providers know a function; of one that would be too long there a
    part, and a digest of all of it."""
    whole = _joined(namespace, name) if namespace else name
    if not namespace or len(whole) <= _MOST_LETTERS:
        return whole
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{whole[: _MOST_LETTERS - 9]}_{digest}"


def _joined(namespace: str, name: str) -> str:
    return f"{namespace}__{name}"


def own_names(request: Object) -> dict[str, Own]:
    """What the client of a request, which has been read, calls those functions that others know
    otherwise, by their names there."""
    found: dict[str, Own] = {}
    for _, tools in _places(request):
        for _, tool in objects(tools, ""):
            is_space = tool.get("type") == "namespace"
            namespace = text_of(tool, "name") if is_space else ""
            for each in objects_of(tool, "tools") if is_space else (tool,):
                own = Own(text_of(each, "name"), namespace, each.get("type") == "custom")
                if namespace or own.is_custom:
                    found[called(own.name, namespace)] = own
    return found


# ---- calls


def call(item: Object, where: str, signature: str) -> ToolCall:
    """A call of a client's conversation. Raises FormatError."""
    name = a_text(item.get("name"), f"{where}.name")
    if item.get("type") == "custom_tool_call":
        arguments = json_text({_INPUT: a_text(item.get("input"), f"{where}.input")})
    else:
        arguments = a_text(item.get("arguments", ""), f"{where}.arguments") or "{}"
    return ToolCall(
        id=a_text(item.get("call_id"), f"{where}.call_id"),
        name=called(name, text_of(item, "namespace")),
        arguments=arguments,
        signature=signature,
    )


def input_of(arguments: str) -> str:
    """The text that a custom tool is called with; arguments that are something else as they are."""
    value = parsed(arguments.encode("utf-8", "surrogatepass"))
    taken = value.get(_INPUT, "" if not value else None) if isinstance(value, dict) else None
    return taken if isinstance(taken, str) else arguments


# ---- which of them


def choice(value: object, tools: Tools) -> ToolChoice | None:
    """`tool_choice`; where it names the only tools that are allowed, the others are gone. Raises
    FormatError."""
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    if isinstance(value, dict):
        return _object_choice(value, tools)
    if value is not None:
        raise FormatError(_CHOICE)
    return None


def _object_choice(value: Object, tools: Tools) -> ToolChoice:
    match value:
        case {"type": "function" | "custom", "name": str(name)}:
            return ToolChoice("tool", called(name, text_of(value, "namespace")))
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode}:
            _allow(objects_of(value, "tools"), tools)
            return ToolChoice(mode)
    raise FormatError(_CHOICE)


def _allow(allowed: list[Object], tools: Tools) -> None:
    names = {called(text_of(each, "name"), text_of(each, "namespace")) for each in allowed}
    kinds = {text_of(each, "type") for each in allowed}
    tools.functions = [each for each in tools.functions if each.name in names]
    tools.native = [each for each in tools.native if each.get("type") in kinds]
