"""Images and documents in requests of Anthropic's Messages format.

https://platform.claude.com/docs/en/build-with-claude/vision,
https://platform.claude.com/docs/en/build-with-claude/pdf-support
"""

from __future__ import annotations

import base64
import binascii

from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.errors import FormatError

_BEGINNINGS = {
    "/9j/": "image/jpeg",
    "iVBOR": "image/png",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "JVBERi": "application/pdf",
}
"""How base64 of each type begins, where nobody says the type."""
_TEXTS = ("text/", "application/json", "application/xml", "application/x-yaml")


def render(media: Media, where: str) -> dict[str, object]:
    """A block of type image or document. Raises FormatError for sound, film and others."""
    if media.kind == "image":
        return {"type": "image", "source": _source(media, where)}
    if media.kind != "file":
        raise FormatError(f"{where}: {media.kind} cannot be sent to models of this format")
    title = {"title": media.name} if media.name else {}
    return {"type": "document", "source": _source(media, where), **title}


def _source(media: Media, where: str) -> dict[str, object]:
    if media.file_id:
        return {"type": "file", "file_id": media.file_id}
    if media.url:
        if not media.url.startswith(("https://", "http://")):
            raise FormatError(f"{where}: expected an https URL, which is all the provider fetches")
        return {"type": "url", "url": media.url}
    media_type = _media_type(media)
    if media.kind == "file" and media_type.startswith(_TEXTS):
        return {"type": "text", "media_type": "text/plain", "data": _decoded(media, where)}
    if media_type != "application/pdf" if media.kind == "file" else not media_type:
        expected = "a PDF or a text" if media.kind == "file" else "an image with its media type"
        raise FormatError(f"{where}: expected {expected}, got {media_type or 'none'}")
    return {"type": "base64", "media_type": media_type, "data": media.data}


def _media_type(media: Media) -> str:
    if not media.media_type:
        found = (t for sign, t in _BEGINNINGS.items() if media.data.startswith(sign))
        return next(found, "")
    return "image/jpeg" if media.media_type == "image/jpg" else media.media_type


def _decoded(media: Media, where: str) -> str:
    try:
        return base64.b64decode(media.data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise FormatError(f"{where}: expected base64 of a text in UTF-8") from None
