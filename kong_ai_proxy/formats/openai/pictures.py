"""Images that clients send along: files of a form, or data URLs in JSON."""

from __future__ import annotations

import base64
import binascii

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import a_text, an_object, media_of_url, wrong
from kong_ai_proxy.formats.images import Picture, media_type_of

FILES = "a PNG, JPEG or WebP file"


def picture(content: bytes, where: str) -> Picture:
    """The image that `content` is, by its first bytes. Raises FormatError."""
    if not content:
        wrong(where, f"{FILES}; it is empty")
    media_type = media_type_of(content)
    if not media_type:
        wrong(where, f"{FILES}; its first bytes are of none of them")
    return Picture(content, media_type)


def referred(value: object, where: str) -> bytes:
    """What a data URL holds; `value` is one, or an object with one. Raises FormatError."""
    if not isinstance(value, str):
        reference = an_object(value, where)
        if reference.get("file_id") is not None:
            raise FormatError(
                f"{where}.file_id: this provider knows no uploaded files; send the image as a "
                "data URL (image_url) or as a file of a form"
            )
        where = f"{where}.image_url"
        value = a_text(reference.get("image_url"), where)
    try:
        media = media_of_url("image", value)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    if media.url:
        raise FormatError(
            f"{where}: expected a data URL (data:image/png;base64,...); this provider fetches "
            "nothing from other addresses"
        )
    try:
        return base64.b64decode(media.data, validate=True)
    except (binascii.Error, ValueError):
        wrong(where, "a data URL in base64")
