"""What converting holds: of a long stream, and of a large answer in one piece.

`python -m benchmarks.conversion.memory PROVIDER CHUNKS BYTES` prints a line of JSON: each row is a
process of its own, which has memory of its own. One of CHUNKS and BYTES is 0.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from benchmarks import resident
from benchmarks.conversion import measure
from benchmarks.conversion.streams import ALL, ANTHROPIC, BEDROCK, GEMINI, Streams

ROOT = Path(__file__).parents[2]
CHUNKS = 20_000
ANSWER = 20_000_000
_PIECE = 64 * 1024


@dataclass(frozen=True)
class MemoryRow:
    """MB of resident memory beyond what there was before."""

    label: str
    chunks: int
    """Of the stream; 0: the answer came in one piece."""
    size: float
    """What went through."""
    peak: float
    kept: float
    """Left when the answer is complete."""


def rows(chunks: int = CHUNKS, size: int = ANSWER) -> Iterator[MemoryRow]:
    """A row for each provider, of a stream and of an answer in one piece."""
    for numbers in ((chunks, 0), (0, size)):
        for streams in ALL:
            yield _in_a_child(streams, *numbers)


def _in_a_child(streams: Streams, chunks: int, size: int) -> MemoryRow:
    module = "benchmarks.conversion.memory"
    command = [sys.executable, "-m", module, streams.name, str(chunks), str(size)]
    found = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return MemoryRow(**orjson.loads(found.stdout))


def row(streams: Streams, chunks: int, size: int) -> MemoryRow:
    """Convert one answer in this process."""
    if chunks:
        pieces: Sequence[bytes] = streams.make(chunks)
    else:
        body = _whole(streams, size)
        pieces = [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)]
        del body
    measure.passed(streams, streams.make(100))  # what is made once
    gc.collect()
    resident.forget_peak(os.getpid())
    before = resident.now(os.getpid())
    written = measure.passed(streams, pieces, stream=bool(chunks))
    peak, after = resident.peak(os.getpid()), resident.now(os.getpid())
    assert written
    return MemoryRow(
        streams.label, chunks, sum(map(len, pieces)) / 1e6, peak - before, after - before
    )


def _whole(streams: Streams, size: int) -> bytes:
    """A whole answer of about `size` bytes."""
    return orjson.dumps(_WHOLE[streams.name]("y" * size))


def _anthropic(text: str) -> object:
    usage = {"input_tokens": 19, "output_tokens": 9}
    content = [{"type": "text", "text": text}]
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {**said, "content": content, "stop_reason": "end_turn", "usage": usage}


def _gemini(text: str) -> object:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 19}}


def _bedrock(text: str) -> object:
    message = {"role": "assistant", "content": [{"text": text}]}
    usage = {"inputTokens": 19, "outputTokens": 9, "totalTokens": 28}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


_WHOLE: dict[str, Callable[[str], object]] = {
    ANTHROPIC.name: _anthropic,
    GEMINI.name: _gemini,
    BEDROCK.name: _bedrock,
}


if __name__ == "__main__":
    _name, _chunks, _size = sys.argv[1:]
    _streams = next(each for each in ALL if each.name == _name)
    print(orjson.dumps(asdict(row(_streams, int(_chunks), int(_size)))).decode())
