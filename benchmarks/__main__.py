"""`python -m benchmarks [--seconds N]`: every figure of the README, from one run."""

from __future__ import annotations

import argparse

from benchmarks import plugin_server


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    options = parser.parse_args()
    print(plugin_server.table(plugin_server.measure(options.seconds)))


if __name__ == "__main__":
    main()
