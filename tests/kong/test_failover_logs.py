"""What Kong's own log says of a request that several targets were asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import ErrorEvent, Good, Refuse, Status
from tests.gateways import GatewayFactory
from tests.integration.balanced import said, world
from tests.kong.scripted import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.mark.parametrize("stream", [False, True])
async def test_kongs_log_names_all_targets_that_were_asked(
    kong: GatewayFactory, log: Log, stream: bool
) -> None:
    if kong.kind != "installed":
        pytest.skip("the log file would be inside the container")
    async with world(kong, "failover.yaml", plugins=[log.plugin]) as found:
        place = found["failover-chat"]
        await place.targets[0].become(Refuse())
        await place.targets[1].become(ErrorEvent(529) if stream else Status(529))
        await place.targets[2].become(Good("two"))
        answer = await place.ask(model="chat", stream=stream)
        if stream:
            assert answer.text.endswith("data: [DONE]\n\n")
        else:
            assert said(answer) == "two"
        assert answer.headers["x-kong-llm-model"] == "gemini/gemini-2.5-flash"
        ai = (await log.record())["ai"]["proxy"]
        ports = [target.port for target in place.targets]
        assert [tried["port"] for tried in ai["tried_targets"]] == ports
        models = [(tried["provider"], tried["model"]) for tried in ai["tried_targets"]]
        assert models == [
            ("openai", "gpt-4o"),
            ("anthropic", "claude-sonnet-4-6"),
            ("gemini", "gemini-2.5-flash"),
        ]
        assert ai["meta"]["provider_name"] == "gemini"
        assert ai["usage"]["total_tokens"] > 0
