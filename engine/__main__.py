"""`python -m engine FD`: the engine process. Its configuration arrives on the channel.

Exit status: 0 when the server closed the channel, 2 after a Failed message, 3 when steps kept
failing or a message could not be sent; any other is a crash.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys

from engine.channel import BlockingEnd
from engine.errors import ConfigError, EngineCrashedError
from engine.logs import configure_logging
from engine.messages import Configure, Failed, Ready
from engine.outbox import Outbox

logger = logging.getLogger(__name__)

EXIT_REFUSED = 2
EXIT_FAILED_STEPS = 3
PR_SET_PDEATHSIG = 1
NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def main(arguments: list[str]) -> int:
    """Build an engine from the first message, run it until the channel ends, say why it ended."""
    gc.disable()  # what is loaded first is no garbage, and to look for some takes a fifth of the loading
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()
    channel = BlockingEnd(socket.socket(fileno=int(arguments[0])))
    first = channel.receive()
    if first is None:
        return 0
    if not isinstance(first, Configure):
        sys.stderr.write(f"the first message must be Configure, not {type(first).__name__}\n")
        return 1
    configure_logging(first.config.log_level, first.config.log_format)
    outbox = Outbox(channel)
    outbox.start()
    try:
        return _run(first, channel, outbox)
    finally:
        outbox.close()
        channel.close()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends; only Linux knows how.

    The end of the channel says the same, but a stopped or stuck process does not read it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def load_numpy() -> None:
    """Import numpy, without the threads of its linear algebra.

    No product is ever asked of them, and when they have nothing to do they first turn round on their cores.
    """
    os.putenv(NUMPY_THREADS, "1")
    import numpy  # noqa: F401, PLC0415  at this moment, and for whoever imports it later

    os.unsetenv(NUMPY_THREADS)


def _run(first: Configure, channel: BlockingEnd, outbox: Outbox) -> int:
    load_numpy()
    from engine.build import build_engine  # noqa: PLC0415  loads most of the engine, as said in `main`

    gc.freeze()  # what was loaded stays: neither this start's collections nor later ones look at it
    gc.enable()
    try:
        built = build_engine(first.config, channel.receive, outbox)
    except ConfigError as error:
        outbox.put(Failed(error=error))
        return EXIT_REFUSED
    outbox.put(Ready(card=built.card, load=built.scheduler.load))
    built.intake.start()
    gc.collect()
    gc.freeze()  # what start-up made stays too
    try:
        built.loop.run()
    except EngineCrashedError:
        logger.exception("engine stops")
        return EXIT_FAILED_STEPS
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
