"""What the stand-in provider accepts as a request for a response; the rest is an error 400.

Follows the API reference of OpenAI's responses. A checked request is also written as a chat
request, so that both APIs give the same answers.
"""

from __future__ import annotations

from typing import Any, Final

from kong_ai_proxy.gateway.provider.http import (
    ApiError,
    Json,
    Rule,
    check_params,
    each,
    member,
    missing,
    new_id,
    wrong_type,
    wrong_value,
)

_STRING = Rule("a string")
_BOOLEAN = Rule("a boolean")
_OBJECT = Rule("an object")
_ARRAY = Rule("an array")

RULES: Final[dict[str, Rule]] = {
    "access_programs": _OBJECT,
    "background": _BOOLEAN,
    "background_options": _OBJECT,
    "client_metadata": _OBJECT,  # Codex sends it; the reference has it not
    "context_management": _ARRAY,
    "conversation": Rule("a string or an object"),
    "image": _OBJECT,
    "include": _ARRAY,
    "input": Rule("anything"),
    "instructions": _STRING,
    "max_output_tokens": Rule("an integer", 16),
    "max_tool_calls": Rule("an integer"),
    "metadata": _OBJECT,
    "model": _STRING,
    "moderation": _OBJECT,
    "parallel_tool_calls": _BOOLEAN,
    "previous_response_id": _STRING,
    "prompt": _OBJECT,
    "prompt_cache_key": _STRING,
    "prompt_cache_options": _OBJECT,
    "prompt_cache_retention": Rule("a string", options=("in_memory", "24h")),
    "reasoning": _OBJECT,
    "safety_identifier": _STRING,
    "service_tier": _STRING,
    "store": _BOOLEAN,
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "temperature": Rule("a decimal", 0, 2),
    "text": _OBJECT,
    "tool_choice": Rule("a string or an object"),
    "tools": _ARRAY,
    "top_logprobs": Rule("an integer", 0, 20),
    "top_p": Rule("a decimal", 0, 1),
    "truncation": Rule("a string", options=("auto", "disabled")),
    "user": _STRING,
}

_ROLES: Final = ("assistant", "system", "developer", "user")
_PARTS: Final = {
    "input_text": "text",
    "input_image": None,
    "input_file": None,
    "input_audio": "input_audio",
    "output_text": "text",
    "refusal": "refusal",
    "summary_text": "text",
}
# What the stand-in understands of an input; other items are kept and listed, but not read.
_ITEMS: Final = {
    "message": (("role", _STRING),),
    "function_call": (("call_id", _STRING), ("name", _STRING), ("arguments", _STRING)),
    "function_call_output": (("call_id", _STRING), ("output", Rule("anything"))),
    "custom_tool_call": (("call_id", _STRING), ("name", _STRING), ("input", _STRING)),
    "custom_tool_call_output": (("call_id", _STRING), ("output", Rule("anything"))),
    "reasoning": (("summary", _ARRAY),),
    "item_reference": (("id", _STRING),),
}
_OTHER_ITEMS: Final = (
    "additional_tools",
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "compaction",
    "compaction_trigger",
    "computer_call",
    "computer_call_output",
    "configuration_update",
    "file_search_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
)
_TOOLS: Final = (
    "function",
    "custom",
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_preview",
)
_PREFIXES: Final = {"message": "msg_", "function_call": "fc_", "reasoning": "rs_"}


def check_response(body: Json) -> Json:
    """The request without its nulls. Raises ApiError 400 for what OpenAI refuses."""
    given = check_params(body, RULES, ("model", "input"))
    _check_input(given["input"])
    each(given.get("tools", []), "tools", _check_tool)
    _check_tool_choice(given)
    _check_format(given)
    if given.get("background") and given.get("store") is False:
        message = "Background responses must be stored: 'background' needs 'store' to be true."
        raise ApiError(400, message, param="background")
    return given


def _check_input(value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise wrong_type("input", "a string or array of objects", value)
    each(value, "input", _check_item)


def _check_item(item: Json, path: str) -> None:
    kind = item.get("type") or "message"
    if kind in _OTHER_ITEMS:
        return
    if kind not in _ITEMS:
        raise wrong_value(f"{path}.type", kind, (*_ITEMS, *_OTHER_ITEMS))
    for name, rule in _ITEMS[kind]:
        member(item, name, path, rule)
    if kind == "message":
        if item["role"] not in _ROLES:
            raise wrong_value(f"{path}.role", item["role"], _ROLES)
        check_content(item, path)


def check_content(item: Json, path: str) -> None:
    """A message's content: text, or an array of parts. Raises ApiError 400."""
    content, where = item.get("content"), f"{path}.content"
    if content is None:
        raise missing(where)
    if isinstance(content, list):
        each(content, where, _check_part)
    elif not isinstance(content, str):
        raise wrong_type(where, "a string or array of objects", content)


def _check_part(part: Json, path: str) -> None:
    kind = member(part, "type", path, _STRING)
    if kind not in _PARTS:
        raise wrong_value(f"{path}.type", kind, _PARTS)
    name = _PARTS[kind]
    if name is not None:
        member(part, name, path, _OBJECT if kind == "input_audio" else _STRING)


def _check_tool(tool: Json, path: str) -> None:
    kind = member(tool, "type", path, _STRING)
    if kind not in _TOOLS:
        raise wrong_value(f"{path}.type", kind, _TOOLS)
    if kind in ("function", "custom"):
        member(tool, "name", path, _STRING)
    if tool.get("parameters") is not None:
        _OBJECT.check(f"{path}.parameters", tool["parameters"])


def _check_tool_choice(given: Json) -> None:
    choice = given.get("tool_choice")
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise wrong_value("tool_choice", choice, ("none", "auto", "required"))
    if not isinstance(choice, dict):
        return
    kind = member(choice, "type", "tool_choice", _STRING)
    if kind == "allowed_tools":
        each(member(choice, "tools", "tool_choice", _ARRAY), "tool_choice.tools", _check_tool)
    elif kind in ("function", "custom"):
        name = member(choice, "name", "tool_choice", _STRING)
        if name not in [tool.get("name") for tool in given.get("tools", [])]:
            message = f"Tool choice '{kind}' not found in 'tools' parameter."
            raise ApiError(400, message, param="tool_choice")


def _check_format(given: Json) -> None:
    wanted = given.get("text", {}).get("format")
    if wanted is None:
        return
    _OBJECT.check("text.format", wanted)
    options = ("text", "json_object", "json_schema")
    kind = member(wanted, "type", "text.format", Rule("a string", options=options))
    if kind == "json_schema":
        member(wanted, "name", "text.format", _STRING)
        member(wanted, "schema", "text.format", _OBJECT)
    if kind == "json_object" and "json" not in str(given["input"]).lower():
        raise ApiError(
            400,
            "Response input messages must contain the word 'json' in some form to use "
            "'text.format' of type 'json_object'.",
            param="input",
        )


# -- the input as items, and the request as a chat request ---------------------------------------


def items(value: Any) -> list[Json]:
    """The input as items with ids, as the API lists them."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    return [_item(dict(item)) for item in value]


def _item(item: Json) -> Json:
    kind = item.get("type") or "message"
    prefix = _PREFIXES.get(kind, f"{kind.split('_')[0]}_")
    out = {"id": new_id(prefix), "status": "completed", **item, "type": kind}
    if kind == "message" and isinstance(item["content"], str):
        part = "output_text" if item["role"] == "assistant" else "input_text"
        out["content"] = [{"type": part, "text": item["content"]}]
    if kind == "message":
        out["content"] = [_part(dict(part)) for part in out["content"]]
    return out


def _part(part: Json) -> Json:
    extra: Json = {"output_text": {"annotations": []}, "input_image": {"detail": "auto"}}
    return {**extra.get(part["type"], {}), **part}


def as_chat(given: Json, history: list[Json]) -> Json:
    """A checked request as a chat request; `history` are all items up to the answer."""
    messages = [_message(item) for item in history]
    if given.get("instructions"):
        messages.insert(0, {"role": "developer", "content": given["instructions"]})
    said = [message for message in messages if message]
    chat: Json = {"model": given["model"], "messages": said or [{"role": "user", "content": ""}]}
    wanted = given.get("text", {}).get("format") or {"type": "text"}
    if wanted["type"] == "json_schema":
        wanted = {"type": "json_schema", "json_schema": wanted}
    chat["response_format"] = wanted
    if "max_output_tokens" in given:
        chat["max_completion_tokens"] = given["max_output_tokens"]
    if "message.output_text.logprobs" in given.get("include", []):
        chat |= {"logprobs": True, "top_logprobs": given.get("top_logprobs", 0)}
    return {**chat, **_tools(given)}


def _message(item: Json) -> Json | None:
    kind = item["type"]
    if kind == "message":
        return {"role": item["role"], "content": words(item["content"])}
    if kind in ("function_call_output", "custom_tool_call_output"):
        output = item["output"]
        said = output if isinstance(output, str) else words(output)
        return {"role": "tool", "content": said, "tool_call_id": item["call_id"]}
    return None


def words(parts: Any) -> str:
    """The text of a message's parts."""
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return " ".join(str(part["text"]) for part in found if part.get("text") is not None)


def _tools(given: Json) -> Json:
    tools = [_tool(t) for t in given.get("tools", []) if t["type"] in ("function", "custom")]
    if not tools:
        return {}
    choice = given.get("tool_choice", "auto")
    if isinstance(choice, str):
        return {"tools": tools, "tool_choice": choice}
    if choice["type"] == "allowed_tools":
        allowed = [_tool(t) for t in choice["tools"] if t["type"] in ("function", "custom")]
        named: Json = {"mode": "auto", "tools": allowed}
        return {"tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools": named}}
    if choice["type"] in ("function", "custom"):
        return {"tools": tools, "tool_choice": _tool(choice)}
    return {"tools": tools}


def _tool(tool: Json) -> Json:
    described = {name: value for name, value in tool.items() if name != "type"}
    if tool["type"] == "function":
        described.setdefault("strict", True)  # the default here, other than in chat
    return {"type": tool["type"], tool["type"]: described}
