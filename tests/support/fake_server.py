"""`ringserve serve` with the fake engine, as a program: its MODEL says how the engine behaves.

answering   answers as the fake engine does
endless     never ends an answer by itself
loading     is never ready
observing   tells, when its first task gets a turn, whether the HTTP application is loaded, and when it is
            stopped whether garbage is looked for
broken      fails for good, with a ConfigError
crashing    fails for good, with another error
"""

import asyncio
import gc
import logging
import sys

from engine import ConfigError, EngineCrashedError, EngineState, configure_logging
from server.serving import StopSignal, bind, serve_engine
from server.settings import Settings
from tests.support.fake_engine import FakeEngine, Script

logger = logging.getLogger(__name__)


class FailingEngine(FakeEngine):
    """Fails for good as soon as it was started."""

    async def start(self) -> None:
        await super().start()
        asyncio.get_running_loop().call_soon(self.fail, FAILURES[self.model_id])


class ObservingEngine(FakeEngine):
    """Begins its work in a task, as the real one does, and tells what is loaded by then."""

    async def start(self) -> None:
        await super().start()
        self.beginning = asyncio.create_task(self.begin())

    async def begin(self) -> None:
        is_loaded = hasattr(sys.modules.get("server.app"), "create_app")
        logger.info("engine begins application_loaded=%s", is_loaded)

    async def stop(self, drain_s: float = 0.0) -> None:
        logger.info(
            "engine stops collecting=%s has_frozen=%s", gc.isenabled(), gc.get_freeze_count() > 10_000
        )
        await super().stop(drain_s)


FAILURES = {
    "broken": ConfigError("window is -1; it must be at least 1"),
    "crashing": EngineCrashedError("the engine process died 6 times within 300 s"),
}


def main() -> int:
    settings = Settings.from_command_line(sys.argv[1:])
    configure_logging(settings.log_level, settings.log_format)
    with StopSignal.installed() as stop:
        engine = engine_for(settings.model)
        return serve_engine(settings, engine, bind(settings.host, settings.port), stop)


def engine_for(behaviour: str) -> FakeEngine:
    if behaviour == "loading":
        return FakeEngine(state=EngineState.STARTING, detail="loading weights 43%", card=None)
    if behaviour in FAILURES:
        return FailingEngine(model_id=behaviour)
    if behaviour == "observing":
        return ObservingEngine()
    return FakeEngine(script=Script(is_endless=behaviour == "endless"))


if __name__ == "__main__":
    sys.exit(main())
