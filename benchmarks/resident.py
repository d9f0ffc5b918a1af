"""Resident memory of processes, in MB."""

from __future__ import annotations

from pathlib import Path

import psutil


def now(pid: int) -> float:
    """What a process has."""
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def peak(pid: int) -> float:
    """The most it had; what it has now where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return now(pid)
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1.024e-3 for line in lines if line.startswith("VmHWM"))


def forget_peak(pid: int) -> None:
    """Let `peak` count from now (Linux)."""
    file = Path(f"/proc/{pid}/clear_refs")
    if file.exists():
        file.write_text("5")
