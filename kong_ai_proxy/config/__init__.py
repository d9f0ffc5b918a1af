"""What an operator may write: the configurations of ai-proxy and ai-proxy-advanced.

`parse` turns a plugin's `config` object into frozen records or says everything that is wrong in
it. The records are complete: what was left out has its default.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from kong_ai_proxy.config import metadata
from kong_ai_proxy.config.errors import ConfigError, Problem, field_problems, rule_problems
from kong_ai_proxy.config.plugins import AiProxy, AiProxyAdvanced, Target
from kong_ai_proxy.config.records import Auth, Logging, Model, ModelOptions
from kong_ai_proxy.config.shapes import Shape, record_shape

__all__ = [
    "PLUGINS",
    "AiProxy",
    "AiProxyAdvanced",
    "Auth",
    "Config",
    "ConfigError",
    "Logging",
    "Model",
    "ModelOptions",
    "Problem",
    "Target",
    "parse",
    "shape",
]

Config = AiProxy | AiProxyAdvanced

_MODELS: Mapping[str, type[AiProxy] | type[AiProxyAdvanced]] = {
    "ai-proxy": AiProxy,
    "ai-proxy-advanced": AiProxyAdvanced,
}
PLUGINS = tuple(_MODELS)


def parse(plugin: str, config: Mapping[str, object]) -> Config:
    """The configuration of one plugin instance.

    `config` is the plugin's `config` object alone, as Kong or a decK file has it: null and absent
    are the same, so are `{}` and `[]`, and an integer may be written 256.0.
    Raises ConfigError with all mistakes, KeyError for a plugin that is not in PLUGINS.
    """
    model, whole = _MODELS[plugin], shape(plugin)
    config, moved = metadata.filled(config, record_shape(ModelOptions))
    problems: list[Problem] = []
    parsed = None
    try:
        parsed = model.model_validate(config)
    except ValidationError as error:
        problems += field_problems(whole, error)
    wrong = {problem.field for problem in problems}
    problems += (found for found in rule_problems(whole, config) if found.field not in wrong)
    if parsed is None or problems:
        problems = [metadata.renamed(problem, moved) for problem in problems]
        raise ConfigError(plugin, tuple(dict.fromkeys(problems))) from None
    return parsed


def shape(plugin: str) -> Shape:
    """The shape of a plugin's whole configuration."""
    return record_shape(_MODELS[plugin])
