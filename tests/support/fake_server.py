"""`ringserve serve` with the fake engine, as a program: its MODEL says how the engine behaves.

answering   answers as the fake engine does
endless     never ends an answer by itself
loading     is never ready
broken      fails for good, with a ConfigError
crashing    fails for good, with another error
"""

import asyncio
import sys

from engine import ConfigError, EngineCrashedError, EngineState, configure_logging
from server.serving import bind, serve_engine
from server.settings import Settings
from tests.support.fake_engine import FakeEngine, Script


class FailingEngine(FakeEngine):
    """Fails for good as soon as it was started."""

    async def start(self) -> None:
        await super().start()
        asyncio.get_running_loop().call_soon(self.fail, FAILURES[self.model_id])


FAILURES = {
    "broken": ConfigError("window is -1; it must be at least 1"),
    "crashing": EngineCrashedError("the engine process died 6 times within 300 s"),
}


def main() -> int:
    settings = Settings.from_command_line(sys.argv[1:])
    configure_logging(settings.log_level)
    return serve_engine(settings, engine_for(settings.model), bind(settings.host, settings.port))


def engine_for(behaviour: str) -> FakeEngine:
    if behaviour == "loading":
        return FakeEngine(state=EngineState.STARTING, detail="loading weights 43%", card=None)
    if behaviour in FAILURES:
        return FailingEngine(model_id=behaviour)
    return FakeEngine(script=Script(is_endless=behaviour == "endless"))


if __name__ == "__main__":
    sys.exit(main())
