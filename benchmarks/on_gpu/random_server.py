"""The command `ringserve serve` as it is, with an engine process of random weights."""

import sys

from engine import Engine, configure_logging, resolve
from server.serving import StopSignal, bind, serve_engine
from server.settings import Settings

COMMAND = (sys.executable, "-m", "benchmarks.on_gpu.random_engine")


def main() -> int:
    settings = Settings.from_command_line(sys.argv[1:])
    configure_logging(settings.log_level, settings.log_format)
    with StopSignal.installed() as stop, bind(settings.host, settings.port) as listener:
        config = settings.to_engine_config(resolve(settings.model, cache_dir=settings.cache_dir))
        return serve_engine(settings, Engine(config, command=COMMAND), listener, stop)


if __name__ == "__main__":
    sys.exit(main())
