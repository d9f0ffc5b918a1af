"""The recorded frames of a real Kong against both protocol implementations."""

from __future__ import annotations

from pathlib import Path

import pytest

from kong_ai_proxy.pluginserver.wire.methods import Protocol
from tests.contract.replay import REPLAYS, at, each_byte, names, whole

PROTOCOLS: tuple[Protocol, ...] = ("protobuf", "msgpack")
SCENARIOS = [(protocol, name) for protocol in PROTOCOLS for name in names(protocol)]


@pytest.mark.parametrize(("protocol", "name"), SCENARIOS)
async def test_server_frames_mean_what_the_recorded_ones_mean(
    protocol: Protocol, name: str, tmp_path: Path
) -> None:
    await REPLAYS[protocol](name, whole, tmp_path).run()


@pytest.mark.parametrize(("protocol", "name"), SCENARIOS)
async def test_kongs_bytes_may_come_one_at_a_time(
    protocol: Protocol, name: str, tmp_path: Path
) -> None:
    await REPLAYS[protocol](name, each_byte, tmp_path).run()


@pytest.mark.parametrize(("protocol", "name"), SCENARIOS)
async def test_kongs_frames_may_be_cut_at_any_place(
    protocol: Protocol, name: str, tmp_path: Path
) -> None:
    for position in range(1, 64):
        await REPLAYS[protocol](name, at(position), tmp_path).run()


def test_the_recordings_are_here() -> None:
    assert len(SCENARIOS) == 71
