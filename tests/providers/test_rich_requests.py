"""Requests that use much of an API pass: the stand-ins are not stricter than their vendors."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests import providers

Json = dict[str, Any]

PNG = "iVBORw0KGgo="
SCHEMA: Json = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "default": 1}},
    "required": [],
    "additionalProperties": False,
}
CACHED = {"type": "ephemeral", "ttl": "1h"}
OPENAI_TOOL: Json = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA},
}

ANTHROPIC: Json = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 4000,
    "system": [
        {"type": "text", "text": "Be.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ],
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "tools": [
        {"name": "add", "description": "Adds.", "input_schema": SCHEMA, "strict": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/i.png"}},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                    "citations": {"enabled": True},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": [1, {}]}},
                {"type": "tool_use", "id": "toolu_2", "name": "add", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "2"}],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
}

OPENAI: Json = {
    "model": "gpt-5",
    "max_completion_tokens": 9,
    "reasoning_effort": "low",
    "n": 2,
    "seed": 1,
    "stop": "x",
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 2},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
    },
    "tools": [OPENAI_TOOL],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "parallel_tool_calls": True,
    "user": "u",
    "metadata": {"a": "b"},
    "store": False,
    "messages": [
        {"role": "developer", "content": "Be."},
        {"role": "system", "content": [{"type": "text", "text": "Be."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {
                    "type": "image_url",
                    "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "2"}]},
    ],
}

GEMINI: Json = {
    "systemInstruction": {"parts": [{"text": "Be."}, {"text": "Good."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "Hi"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"inline_data": {"mime_type": "image/png", "data": PNG}},
                {"fileData": {"mimeType": "image/png", "fileUri": "gs://a/b.png"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Hm.", "thought": True},
                {
                    "functionCall": {"id": "1", "name": "add", "args": {"a": [1, {"b": None}]}},
                    "thoughtSignature": "c2ln",
                },
                {"functionCall": {"id": "2", "name": "add"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "1", "name": "add", "response": {"output": 2}}},
                {"functionResponse": {"id": "2", "name": "add", "response": {"error": "x"}}},
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {"name": "add", "parametersJsonSchema": SCHEMA},
                {"name": "sub", "parameters": {"type": "object", "properties": {}}},
            ]
        },
        {"codeExecution": {}},
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["add"]}},
    "safetySettings": [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"},
    ],
    "generationConfig": {
        "temperature": 1,
        "topP": 0.5,
        "topK": 3,
        "maxOutputTokens": 9,
        "candidateCount": 1,
        "stopSequences": ["x"],
        "seed": 1,
        "presencePenalty": 0.1,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "responseLogprobs": True,
        "logprobs": 2,
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024},
    },
}

BEDROCK: Json = {
    "system": [{"text": "Be."}, {"cachePoint": {"type": "default"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"text": "Hi"},
                {"image": {"format": "png", "source": {"bytes": PNG}}},
                {"document": {"format": "txt", "name": "a", "source": {"bytes": PNG}}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
                {"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": [1, {}, None]}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"json": {"a": 1}}]}},
                {"cachePoint": {"type": "default"}},
                {"text": "Go on."},
            ],
        },
    ],
    "inferenceConfig": {"maxTokens": 9, "temperature": 1, "topP": 0.5, "stopSequences": ["x"]},
    "toolConfig": {
        "tools": [
            {"toolSpec": {"name": "add", "description": "Adds.", "inputSchema": {"json": SCHEMA}}},
            {"cachePoint": {"type": "default"}},
        ],
        "toolChoice": {"tool": {"name": "add"}},
    },
    "guardrailConfig": {"guardrailIdentifier": "abcdef", "guardrailVersion": "1"},
    "additionalModelRequestFields": {"top_k": 5, "thinking": {"type": "enabled"}},
    "requestMetadata": {"a": "b"},
}

COHERE: Json = {
    "model": "command-a-03-2025",
    "max_tokens": 9,
    "temperature": 0.5,
    "p": 0.5,
    "k": 5,
    "seed": 1,
    "stop_sequences": ["x"],
    "logprobs": True,
    "strict_tools": True,
    "tools": [OPENAI_TOOL],
    "tool_choice": "REQUIRED",
    "thinking": {"type": "enabled", "token_budget": 100},
    "safety_mode": "CONTEXTUAL",
    "messages": [
        {"role": "system", "content": "Be."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
        {
            "role": "assistant",
            "tool_plan": "I add.",
            "tool_calls": OPENAI["messages"][3]["tool_calls"],
        },
        {
            "role": "tool",
            "tool_call_id": "call_1",
            "content": [{"type": "document", "document": {"data": {"a": 1}}}],
        },
    ],
}

MISTRAL: Json = {
    "model": "mistral-large-latest",
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.5,
    "random_seed": 1,
    "stop": ["x"],
    "n": 1,
    "safe_prompt": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
    },
    "tools": [OPENAI_TOOL],
    "tool_choice": "any",
    "parallel_tool_calls": True,
    "messages": [
        {"role": "system", "content": "Be."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "abcdefgh1",
                    "type": "function",
                    "function": {"name": "add", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefgh1", "name": "add", "content": "2"},
    ],
}

HUGGINGFACE: Json = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "max_tokens": 9,
    "temperature": 0.5,
    "seed": 1,
    "stop": ["x"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "tools": [OPENAI_TOOL],
    "tool_choice": "auto",
    "messages": [{"role": "system", "content": "Be."}, *OPENAI["messages"][2:]],
}

OLLAMA: Json = {
    "model": "llama3.2",
    "options": {"temperature": 0.5, "num_predict": 9, "stop": ["x"], "min_p": 0.1},
    "format": SCHEMA,
    "keep_alive": "5m",
    "think": True,
    "tools": [OPENAI_TOOL],
    "messages": [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": "Hi", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "tool_name": "add", "content": "2"},
    ],
}

CASES: dict[str, tuple[str, Json]] = {
    "anthropic": ("/v1/messages", ANTHROPIC),
    "openai": ("/v1/chat/completions", OPENAI),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", GEMINI),
    "vertex": (
        "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent",
        {**GEMINI, "labels": {"a": "b"}},
    ),
    "bedrock": ("/model/anthropic.claude-sonnet-4-6/converse", BEDROCK),
    "cohere": ("/v2/chat", COHERE),
    "mistral": ("/v1/chat/completions", MISTRAL),
    "huggingface": ("/v1/chat/completions", HUGGINGFACE),
    "ollama": ("/api/chat", OLLAMA),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_rich_request_passes(name: str) -> None:
    path, body = CASES[name]
    headers = {"x-goog-api-key": "k"} if name == "gemini" else {"Authorization": "Bearer k"}
    headers["anthropic-version"] = "2023-06-01"
    async with getattr(providers, name)() as upstream:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(upstream.url + path, json=body) as response,
        ):
            await response.read()
        assert upstream.failures == []
