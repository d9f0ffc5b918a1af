"""What S3 says in place of an object:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""

from __future__ import annotations

import re
from html import unescape

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import plain_error

_REDIRECTS = range(300, 400)
_BAD_GATEWAY = 502
_MAX_BODY = 64 << 10
_CODE = re.compile(r"<Code>([^<]{1,200})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,2000})</Message>")


def parse_error(status: int, body: bytes) -> ProviderError:
    """An error of any content; S3's own are XML."""
    text = body[:_MAX_BODY].decode("utf-8", "replace")
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if not code:
        error = plain_error(status, body)
        return error._replace(status=_BAD_GATEWAY) if status in _REDIRECTS else error
    name = unescape(code[1])
    told = unescape(message[1]) if message else name
    if status in _REDIRECTS:
        told += " The bucket is in another region than model.options.bedrock.aws_region."
        status = _BAD_GATEWAY
    return ProviderError(f"S3: {told}", type=name, status=status, code=name)
