"""Memory that the processes of a generation share. The supervisor makes it, anonymous, and its
workers inherit it."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from types import TracebackType

from kong_ai_proxy.balancer.memory import Memory, size


def anonymous(name: str, length: int) -> int:
    """A descriptor of so many bytes, all zero, that are in no directory. `name` is for who looks
    into /proc. Raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, length)
    return descriptor


class SharedTargets:
    """The state of the targets of one generation, in memory that is shared."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """Map the memory at `descriptor`, which `create` made here or in the process before for
        so many workers, and own the descriptor."""
        self._descriptor = descriptor
        content = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        self.memory = Memory(content, workers, _Lock(descriptor))

    @classmethod
    def create(cls, workers: int) -> SharedTargets:
        """New memory. Raises OSError."""
        return cls(anonymous("kong-ai-proxy targets", size(workers)), workers)

    def fileno(self) -> int:
        """The descriptor to hand down."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor. The memory goes with its last user."""
        os.close(self._descriptor)


class _Lock:
    """A POSIX record lock, which the kernel gives back when its process dies. It does not keep the
    threads of one process apart."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)
