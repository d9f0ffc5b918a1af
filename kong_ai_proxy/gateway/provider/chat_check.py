"""What the stand-in provider accepts as a chat completion request; the rest is an error 400.

Follows the API reference of OpenAI's chat completions: parameters, ranges, roles, message parts,
tools. Errors name the parameter by its path, `messages[0].content[1].type`.
"""

from __future__ import annotations

from typing import Any, Final

from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Rule,
    check_params,
    each,
    kind_of,
    member,
    wrong_value,
)

_STRING = Rule("a string")
_BOOLEAN = Rule("a boolean")
_OBJECT = Rule("an object")
_ARRAY = Rule("an array")

RULES: Final[dict[str, Rule]] = {
    "audio": _OBJECT,
    "frequency_penalty": Rule("a decimal", -2, 2),
    "function_call": Rule("a string or an object"),
    "functions": _ARRAY,
    "logit_bias": _OBJECT,
    "logprobs": _BOOLEAN,
    "max_completion_tokens": Rule("an integer", 1),
    "max_tokens": Rule("an integer", 1),
    "messages": _ARRAY,
    "metadata": _OBJECT,
    "modalities": _ARRAY,
    "model": _STRING,
    "moderation": _OBJECT,
    "n": Rule("an integer", 1, 128),
    "parallel_tool_calls": _BOOLEAN,
    "prediction": _OBJECT,
    "presence_penalty": Rule("a decimal", -2, 2),
    "prompt_cache_key": _STRING,
    "prompt_cache_options": _OBJECT,
    "prompt_cache_retention": _STRING,
    "reasoning_effort": _STRING,
    "response_format": _OBJECT,
    "safety_identifier": _STRING,
    "seed": Rule("an integer"),
    "service_tier": _STRING,
    "stop": Rule("a string or array of strings"),
    "store": _BOOLEAN,
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "temperature": Rule("a decimal", 0, 2),
    "tool_choice": Rule("a string or an object"),
    "tools": _ARRAY,
    "top_logprobs": Rule("an integer", 0, 20),
    "top_p": Rule("a decimal", 0, 1),
    "user": _STRING,
    "verbosity": Rule("a string", options=("low", "medium", "high")),
    "web_search_options": _OBJECT,
}

_ROLES: Final = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS: Final = {
    "text": ("text", _STRING),
    "image_url": ("image_url", _OBJECT),
    "input_audio": ("input_audio", _OBJECT),
    "file": ("file", _OBJECT),
    "refusal": ("refusal", _STRING),
}


def check_chat(body: Json) -> Json:
    """The request without its nulls. Raises ApiError 400 for what OpenAI refuses."""
    given = check_params(body, RULES, ("model", "messages"))
    _check_modalities(given)
    _check_messages(given["messages"])
    _check_stop(given.get("stop"))
    _check_tools(given)
    _check_format(given)
    return given


def words_of(message: Json) -> str:
    """The text of a message, the texts of its parts joined by blanks."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _check_modalities(given: Json) -> None:
    if "audio" in given.get("modalities", []):
        message = "The stand-in provider does not speak in chat completions."
        raise ApiError(400, message, param="modalities", code="unsupported_value")


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise ApiError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.",
            param="messages",
            code="empty_array",
        )
    each(messages, "messages", _check_message)
    _check_tool_results(messages)


def _check_message(message: Json, path: str) -> None:
    role = member(message, "role", path, _STRING)
    if role not in _ROLES:
        raise wrong_value(f"{path}.role", role, _ROLES)
    calls = message.get("tool_calls")
    if calls is not None:
        _ARRAY.check(f"{path}.tool_calls", calls)
        each(calls, f"{path}.tool_calls", _check_call)
    if role == "tool":
        member(message, "tool_call_id", path, _STRING)
    _check_content(message, path)


def _check_call(call: Json, path: str) -> None:
    member(call, "id", path, _STRING)
    kind = member(call, "type", path, Rule("a string", options=("function", "custom")))
    called = member(call, kind, path, _OBJECT)
    member(called, "name", f"{path}.{kind}", _STRING)


def _check_content(message: Json, path: str) -> None:
    content, where = message.get("content"), f"{path}.content"
    if content is None:
        silent = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
        if message["role"] == "assistant" and (silent or message.get("audio")):
            return
        raise ApiError(
            400,
            f"Invalid value for 'content': expected a string, got null at '{where}'.",
            param=where,
        )
    if isinstance(content, list):
        each(content, where, _check_part)
    elif not isinstance(content, str):
        raise ApiError(
            400,
            f"Invalid type for '{where}': expected one of a string or array of objects, but got "
            f"{kind_of(content)} instead.",
            param=where,
            code="invalid_type",
        )


def _check_part(part: Json, path: str) -> None:
    kind = member(part, "type", path, _STRING)
    if kind not in _PARTS:
        raise wrong_value(f"{path}.type", kind, _PARTS)
    name, rule = _PARTS[kind]
    value = member(part, name, path, rule)
    if kind == "image_url":
        member(value, "url", f"{path}.image_url", _STRING)


def _check_tool_results(messages: list[Json]) -> None:
    """Every tool message answers a call made before it; every call is answered."""
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise ApiError(
                    400,
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceeding message with 'tool_calls'.",
                    param=f"messages.[{at}].role",
                )
            open_calls.discard(message["tool_call_id"])
            continue
        _require_answered(open_calls)
        open_calls = {call["id"] for call in message.get("tool_calls") or []}
    _require_answered(open_calls)


def _require_answered(open_calls: set[str]) -> None:
    if open_calls:
        raise ApiError(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(sorted(open_calls))}",
            param="messages",
        )


def _check_stop(stop: object) -> None:
    if isinstance(stop, list) and len(stop) > 4:
        raise ApiError(
            400,
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an "
            f"array with length {len(stop)} instead.",
            param="stop",
            code="array_above_max_length",
        )


def _check_tools(given: Json) -> None:
    for name in ("tools", "functions"):
        if given.get(name) == []:
            raise ApiError(
                400,
                f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got "
                "an empty array instead.",
                param=name,
                code="empty_array",
            )
    each(given.get("tools", []), "tools", _check_tool)
    each(given.get("functions", []), "functions", _check_function)
    _check_tool_choice(given)


def _check_tool(tool: Json, path: str) -> None:
    kind = member(tool, "type", path, Rule("a string", options=("function", "custom")))
    described = member(tool, kind, path, _OBJECT)
    _check_function(described, f"{path}.{kind}")


def _check_function(function: Json, path: str) -> None:
    member(function, "name", path, _STRING)
    if function.get("parameters") is not None:
        _OBJECT.check(f"{path}.parameters", function["parameters"])


def _check_tool_choice(given: Json) -> None:
    if isinstance(given.get("function_call"), dict):
        member(given["function_call"], "name", "function_call", _STRING)
    choice = given.get("tool_choice")
    if choice is None:
        return
    if "tools" not in given:
        raise ApiError(
            400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice"
        )
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise wrong_value("tool_choice", choice, ("none", "auto", "required"))
        return
    options = ("function", "custom", "allowed_tools")
    kind = member(choice, "type", "tool_choice", Rule("a string", options=options))
    named = member(choice, kind, "tool_choice", _OBJECT)
    if kind == "allowed_tools":
        member(named, "mode", "tool_choice.allowed_tools", _STRING)
        chosen = member(named, "tools", "tool_choice.allowed_tools", _ARRAY)
        each(chosen, "tool_choice.allowed_tools.tools", _check_tool)
        return
    name = member(named, "name", f"tool_choice.{kind}", _STRING)
    if name not in [tool[tool["type"]]["name"] for tool in given["tools"]]:
        raise ApiError(
            400,
            f"Tool choice '{kind}' not found in 'tools' parameter.",
            param="tool_choice",
        )


def _check_format(given: Json) -> None:
    wanted = given.get("response_format")
    if wanted is None:
        return
    options = ("text", "json_object", "json_schema")
    kind = member(wanted, "type", "response_format", Rule("a string", options=options))
    if kind == "json_schema":
        described = member(wanted, "json_schema", "response_format", _OBJECT)
        member(described, "name", "response_format.json_schema", _STRING)
    said = " ".join(words_of(message) for message in given["messages"])
    if kind == "json_object" and "json" not in said.lower():
        raise ApiError(
            400,
            "'messages' must contain the word 'json' in some form, to use 'response_format' of "
            "type 'json_object'.",
            param="messages",
        )
