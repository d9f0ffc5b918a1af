"""`python -m benchmarks [PART ...] [--seconds N]`: every figure of the README, from one run."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from benchmarks import balancing, plugin_server
from benchmarks.conversion import parts
from benchmarks.relay import cases, measure, pinned, processes, report

PLUGIN_SERVER, BALANCING, RELAY = "plugin-server", "balancing", "relay"
PROXIED = frozenset(case.name for case in cases.CASES)
TRANSLATED = frozenset(case.name for case in cases.TRANSLATED)
RELAY_PARTS = (*cases.BY_NAME, cases.UPLOAD, cases.DOWNLOAD)
PARTS = (PLUGIN_SERVER, *parts.NAMES, BALANCING, RELAY)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=(*PARTS, *RELAY_PARTS),
        default=PARTS,
        metavar="PART",
        help=f"{', '.join(PARTS)}, or of the relay only {', '.join(RELAY_PARTS)} "
        "(default: everything)",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    parser.add_argument(
        "--control",
        action="store_true",
        help="measure the proxy against itself in place of the relay: how much chance there is",
    )
    options = parser.parse_args()
    if PLUGIN_SERVER in options.parts:
        print(plugin_server.table(plugin_server.measure(options.seconds)), end="\n\n")
    for part in parts.NAMES:
        if part in options.parts:
            _print(parts.lines(part, options.seconds))
    if BALANCING in options.parts:
        _print(balancing.lines(options.seconds))
    relay = [part for part in options.parts if part == RELAY or part in RELAY_PARTS]
    if relay:
        _relay([part for part in relay if part != RELAY], options.seconds, options.control)


def _relay(chosen: list[str], seconds: float, control: bool) -> None:
    pinned.pin(processes.LAST_CORE)
    if not chosen or PROXIED & set(chosen):
        _print(report.rows(measure.rows(chosen, seconds, control=control), seconds))
    if not chosen or TRANSLATED & set(chosen):
        _print(report.translated(measure.translated(chosen, seconds), seconds))
    if not chosen or {cases.UPLOAD, cases.DOWNLOAD} & set(chosen):
        _print(report.transfers(measure.transfers(chosen, control=control)))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
    print()


if __name__ == "__main__":
    main()
