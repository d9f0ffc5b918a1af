"""A client's body that nobody here has to read whole, on its way to the provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class PassingBody:
    """Pieces as they arrive. They are kept as long as all of them together are not too much, so
    that another target can be sent the same."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], most: int) -> None:
        """`read` gives the next piece, b"" at the end; at most `most` bytes are kept."""
        self.is_whole = True
        """Whether it can be begun anew."""
        self.is_awaited = False
        """Whether the client's next piece is waited for."""
        self._read = read
        self._most = most
        self._kept: list[bytes] = []
        self._size = 0
        self._next = 0

    def begin(self) -> None:
        """From here on `take` gives it from its beginning. Only while it is whole."""
        self._next = 0
        self.is_awaited = False

    async def take(self) -> bytes:
        """The next piece, b"" at the end. Raises what `read` does."""
        if self._next < len(self._kept):
            self._next += 1
            return self._kept[self._next - 1]
        self.is_awaited = True  # and stays so where nobody waits for it any longer
        piece = await self._read()
        self.is_awaited = False
        self._size += len(piece)
        if piece and self.is_whole:
            self._keep(piece)
        return piece

    def _keep(self, piece: bytes) -> None:
        if self._size > self._most:
            self.is_whole = False
            self._kept.clear()
        else:
            self._kept.append(piece)
        self._next = len(self._kept)
