"""How to start the scripted engine, and what it was told."""

import sys
from pathlib import Path

from engine.config import EngineConfig, ModelConfig, SchedulingConfig, SupervisionConfig

PROGRAM = Path(__file__).with_name("scripted_engine.py")


def scripted(*flags: object) -> tuple[str, ...]:
    """The command line of a scripted engine, for a Supervisor or an Engine."""
    return (sys.executable, "-S", str(PROGRAM), *map(str, flags))


def scripted_config(
    *, scheduling: SchedulingConfig | None = None, supervision: SupervisionConfig | None = None
) -> EngineConfig:
    return EngineConfig(
        model=ModelConfig(path="scripted", model_id="scripted-model"),
        scheduling=scheduling or SchedulingConfig(),
        supervision=supervision or SupervisionConfig(),
    )
