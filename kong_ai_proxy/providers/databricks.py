"""Databricks, its endpoints for foundation models:
https://docs.databricks.com/en/machine-learning/foundation-model-apis/api-reference.html."""

from __future__ import annotations

import re

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.base import Provider
from kong_ai_proxy.providers.openai_messages import without_developer

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ID = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

# Hosts of workspaces by cloud: https://docs.databricks.com/en/workspace/workspace-details.html.
_DOMAINS = (
    ".cloud.databricks.com",
    ".gcp.databricks.com",
    ".azuredatabricks.net",
    ".databricks.azure.cn",
    ".databricks.azure.us",
)


def _base_url(options: ModelOptions) -> str:
    """The workspace's host: its id on AWS, or a whole host name under a domain of Databricks',
    such as adb-1234567890123456.7.azuredatabricks.net. No other host, for the id may be a client's.

    Raises FormatError for an id that is none.
    """
    workspace = options.databricks.workspace_instance_id
    if not workspace:
        return ""
    if not _ID.fullmatch(workspace):
        raise FormatError("databricks.workspace_instance_id: expected letters, digits, '-' and '.'")
    host = workspace if workspace.lower().endswith(_DOMAINS) else f"{workspace}{_DOMAINS[0]}"
    return f"https://{host}"


DATABRICKS = Provider(
    name="databricks",
    answers_loosely=True,
    base_url=_base_url,
    # Kong's path. Databricks' own pages give OpenAI clients the base URL
    # https://{host}/serving-endpoints, which makes it /serving-endpoints/chat/completions;
    # `upstream_path` is for whoever needs that one.
    paths={openai.CHAT: "/serving-endpoints/v1/chat/completions"},
    # A message's role is system, user, assistant or tool (same page, "ChatMessage").
    changes={openai.CHAT: without_developer},
    # Models of other makers refuse it, and usage comes without it: every response has it (same
    # page, "Usage").
    refused=frozenset({"stream_options"}),
    usage_on_request=False,
    # "This parameter is only accepted by a limited set of models", to which Claude does not belong;
    # its own is `thinking`: https://docs.databricks.com/aws/en/machine-learning/model-serving/query-reason-models.
    refused_by_model=((re.compile("claude"), frozenset({"reasoning_effort"})),),
)
