"""Small images for stand-ins and their tests."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

from tests.providers.upstream import RefusedError

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(20)


def png(*rows: bytes, alpha: bool = False) -> bytes:
    """A PNG file: of each row a byte a pixel, which is its grey, or with `alpha` how opaque it
    is."""
    lines = [b"".join(bytes([0, 0, 0, p] if alpha else [p, p, p]) for p in row) for row in rows]
    data = zlib.compress(b"".join(b"\0" + line for line in lines))
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 6 if alpha else 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


PNG = png(b"\x00\xff", b"\xff\x00")
MASK = png(b"\x00\xff", b"\xff\xff", alpha=True)
"""As OpenAI has it: the first pixel is to be edited."""
WHITE_MASK = png(b"\xff\x00", b"\x00\x00")
"""The same where white is to be edited."""


def pixels(content: bytes) -> bytes:
    """The first byte of each pixel of a file such as `png` makes. Raises ValueError."""
    width, height = struct.unpack_from(">II", content, 16)
    at, data = 8, b""
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IDAT":
            data += content[at + 8 : at + 8 + size]
        at += 12 + size
    row = 1 + 3 * width
    plain = zlib.decompress(data)
    if len(plain) != row * height:
        raise ValueError("expected eight bits of red, green and blue")
    return b"".join(plain[start + 1 : start + row : 3] for start in range(0, len(plain), row))


def decoded(data: str, altchars: bytes | None = None) -> bytes:
    """The image that base64 holds. Raises RefusedError."""
    try:
        content = base64.b64decode(data, altchars, validate=True)
    except binascii.Error:
        raise RefusedError("Base64 decoding failed") from None
    if not content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")):
        raise RefusedError("Unable to process input image")
    return content
