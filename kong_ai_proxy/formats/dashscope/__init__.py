"""Alibaba's own format of Dashscope (Model Studio), which it has for what OpenAI's endpoint there
does not do: https://www.alibabacloud.com/help/en/model-studio/dashscope-api-reference.

`{"model", "input", "parameters"}` is answered with `{"output", "usage", "request_id"}`, errors are
`{"code", "message", "request_id"}`: https://www.alibabacloud.com/help/en/model-studio/error-code.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats import fields
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import errors as openai_errors

# What the page on errors says of codes, whose later parts (InvalidParameter.DataInspection) say it
# more exactly. A task that failed has a code and no status.
_STATUSES = {
    "AccessDenied": 403,
    "AllocationQuota": 429,
    "Arrearage": 400,
    "BadRequest": 400,
    "DataInspection": 400,
    "DataInspectionFailed": 400,
    "FaqRuleBlocked": 400,
    "InternalError": 500,
    "InvalidApiKey": 401,
    "InvalidParameter": 400,
    "InvalidURL": 400,
    "IPInfringementSuspect": 400,
    "LimitRequests": 429,
    "Model": 403,
    "ModelNotFound": 404,
    "RequestTimeOut": 504,
    "Throttling": 429,
    "Workspace": 403,
}
"""By the first part of a code."""


def parse_error(status: int, body: bytes) -> ProviderError:
    """A provider's error of any content, also in OpenAI's shape."""
    value = fields.parsed(body)
    return told(value, status) or openai_errors.parse_error(status, body)


def told(value: object, status: int = 0) -> ProviderError | None:
    """The error that a JSON value is, an answer or the `output` of a task; None where it is
    none."""
    if not isinstance(value, Mapping):
        return None
    code = fields.text_of(value, "code")
    if not code:
        return None
    known = _STATUSES.get(code.partition(".")[0], 0)
    message = fields.text_of(value, "message") or code
    return ProviderError(message, type=code, status=status or known, code=code)
