"""Sound without codecs: a beep for each word where samples are sent as they are, silence elsewhere.

Every file can be played. WAV and raw samples hold the beeps; MP3, AAC, Opus and FLAC are made of
frames that decode to silence of the same length, since a tone would need an encoder.
"""

from __future__ import annotations

import math
import struct
from array import array
from dataclasses import dataclass
from functools import cache
from typing import Final

from kong_ai_proxy.gateway.provider import text
from kong_ai_proxy.gateway.provider.blob import Blob

RATE: Final = 24000  # samples a second, 16 bits, one channel: what OpenAI sends as pcm
WORD_SECONDS: Final = 0.1
_PITCHES: Final = (262, 294, 330, 349, 392, 440, 494)  # Hz: C4 to B4
_MOST_CHUNKS: Final = 1000


def seconds_of(words: str, speed: float = 1.0) -> float:
    """How long the words take."""
    return max(1, text.count(words)) * WORD_SECONDS / speed


def samples(words: str, speed: float = 1.0) -> bytes:
    """A beep a word, as 16-bit little-endian samples."""
    length = round(RATE * WORD_SECONDS / speed)
    pieces = text.tokens(words) or [""]
    return b"".join(_beep(_PITCHES[len(piece) % len(_PITCHES)], length) for piece in pieces)


@cache
def _beep(pitch: int, length: int) -> bytes:
    wave = array("h", (_sample(pitch, at, length) for at in range(length)))
    return struct.pack(f"<{length}h", *wave)


def _sample(pitch: int, at: int, length: int) -> int:
    swell = math.sin(math.pi * at / length)  # so that beeps do not crack
    return round(8000 * swell * math.sin(2 * math.pi * pitch * at / RATE))


def wav(data: bytes) -> bytes:
    """Samples as a WAV file (RIFF, "Multimedia Programming Interface and Data Specifications")."""
    form = struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def mp3(seconds: float) -> bytes:
    """MPEG-1 Layer III, 48 kHz, one channel, 32 kbit/s: frames of 1,152 samples in 96 bytes.

    Side information of zeros says that no coefficient follows (ISO 11172-3, section 2.4.1.7).
    """
    frame = b"\xff\xfb\x14\xc0".ljust(96, b"\0")
    return frame * math.ceil(seconds * 48000 / 1152)


def aac(seconds: float) -> bytes:
    """ADTS frames of AAC-LC, 24 kHz, one channel, 1,024 samples each (ISO 13818-7, section 6).

    One channel element without scale factor bands, then the end element.
    """
    block = b"\x00\x00\x00\x07"
    size = 7 + len(block)
    head = bytes([0xFF, 0xF1, 0x58, 0x40 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5 | 0x1F])
    return (head + b"\xfc" + block) * math.ceil(seconds * RATE / 1024)


def flac(seconds: float) -> bytes:
    """FLAC frames whose one subframe is the constant 0 (RFC 9639, sections 8 and 9)."""
    size = 4608  # samples a frame: block size code 5
    frames = max(1, math.ceil(seconds * RATE / size))
    packed = RATE << 44 | (16 - 1) << 36 | frames * size  # rate, channels - 1, bits - 1, samples
    info = struct.pack(">HH", size, size) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\x00\x00\x22" + info + b"".join(_flac_frame(n) for n in range(frames))


def _flac_frame(number: int) -> bytes:
    head = b"\xff\xf8\x57\x08" + chr(number).encode()  # numbers are coded like UTF-8 here
    head += bytes([_crc(head, 8, 0x07)])
    frame = head + b"\x00\x00\x00"  # a constant subframe, 16 bits of 0
    return frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")


def opus(seconds: float) -> bytes:
    """Ogg pages of Opus, 20 ms of silence a packet (RFC 7845; RFC 6716 section 3.1)."""
    head = b"OpusHead\x01\x01" + struct.pack("<HIhB", 312, RATE, 0, 0)
    vendor = b"kong-ai-proxy"
    tags = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + bytes(4)
    left = max(1, math.ceil(seconds * 50))
    pages = [_page([head], 0, 0, 0x02), _page([tags], 1, 0, 0)]
    made = 0
    while made < left:
        count = min(255, left - made)
        made += count
        flags = 0x04 if made == left else 0
        pages.append(_page([b"\xf8\xff\xfe"] * count, len(pages), made * 960, flags))
    return b"".join(pages)


def _page(packets: list[bytes], number: int, position: int, flags: int) -> bytes:
    """A page of short packets (RFC 3533 section 6)."""
    lacing = bytes([len(packets)]) + bytes(len(packet) for packet in packets)
    head = b"OggS\0" + struct.pack("<BqII", flags, position, 0x4B41, number)
    body = lacing + b"".join(packets)
    crc = _crc(head + bytes(4) + body, 32, 0x04C11DB7)
    return head + struct.pack("<I", crc) + body


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """The remainder as FLAC and Ogg want it: first bit first, starting at 0."""
    top, mask, crc = 1 << (bits - 1), (1 << bits) - 1, 0
    for byte in data:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
    return crc


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wav:
    """What a WAV file says about itself."""

    channels: int
    rate: int
    seconds: float


def read_wav(blob: Blob) -> Wav:
    """Find format and length. Raises ValueError for what is no WAV file with samples."""
    riff = blob.read(0, 12)
    if len(riff) < 12 or riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        raise ValueError("no RIFF WAVE header")
    at, form = 12, b""
    for _ in range(_MOST_CHUNKS):
        head = blob.read(at, 8)
        if len(head) < 8:
            break
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind == b"fmt ":
            form = blob.read(at + 8, 16)
        elif kind == b"data":
            return _wav(form, min(size, blob.size - at - 8))
        at += 8 + size + size % 2
    raise ValueError("no data chunk")


def _wav(form: bytes, size: int) -> Wav:
    if len(form) < 16:
        raise ValueError("no fmt chunk before the data chunk")
    _, channels, rate, bytes_a_second = struct.unpack("<HHII", form[:12])
    if not channels or not rate or not bytes_a_second:
        raise ValueError("a fmt chunk without channels or rate")
    return Wav(channels, rate, size / bytes_a_second)
