"""What `kong-ai-proxy dev` prints: commands to copy."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any, Final

_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True)
class Models:
    """Model names that the upstream knows."""

    chat: str = "gpt-4o-mini"
    completions: str = "gpt-3.5-turbo-instruct"
    embeddings: str = "text-embedding-3-small"

    @classmethod
    def among(cls, names: list[str]) -> Models:
        """Names for an upstream that lists `names`; the defaults where it lists none."""
        if not names:
            return cls()
        embedders = [name for name in names if "embed" in name]
        talkers = [name for name in names if name not in embedders] or names
        chat = cls.chat if cls.chat in names else talkers[0]
        completions = cls.completions if cls.completions in names else chat
        embeddings = cls.embeddings if cls.embeddings in names else (embedders or names)[0]
        return cls(chat, completions, embeddings)


def commands(url: str, models: Models) -> list[tuple[str, str]]:
    """What each command shows, and the command, for a gateway at `url` that runs openai.yaml."""

    def said(text: str) -> dict[str, Any]:
        return {"model": models.chat, "messages": [{"role": "user", "content": text}]}

    streamed = {**said("Count to five"), "stream": True}
    tools = {**said("What is the weather in Paris?"), "tools": [_TOOL]}
    prompt = {"model": models.completions, "prompt": "Once upon a time", "max_tokens": 32}
    embedded = {"model": models.embeddings, "input": "Hello"}
    return [
        ("chat", _curl(f"{url}/v1/chat/completions", said("Hello"))),
        ("chat, streamed", _curl(f"{url}/v1/chat/completions", streamed, "-N")),
        ("tools", _curl(f"{url}/v1/chat/completions", tools)),
        ("completions", _curl(f"{url}/v1/completions", prompt)),
        ("embeddings", _curl(f"{url}/v1/embeddings", embedded)),
    ]


def _curl(url: str, body: dict[str, Any], *options: str) -> str:
    words = ["curl", *options, url, "-H 'Content-Type: application/json'"]
    return f"{' '.join(words)} -d '{json.dumps(body)}'"


def python_client(url: str, models: Models) -> str:
    """The same with OpenAI's own client."""
    return (
        f'{shlex.quote(sys.executable)} -c "from openai import OpenAI; '
        f"client = OpenAI(base_url='{url}/v1', api_key='unused'); "
        f"print(client.chat.completions.create(model='{models.chat}', "
        "messages=[{'role': 'user', 'content': 'Hello'}]).choices[0].message.content)\""
    )
