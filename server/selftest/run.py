"""Runs the drills one after the other and tells how each went; says by its result whether all is well."""

from collections.abc import Callable, Mapping
from typing import TextIO

import httpx

from server.selftest.target import FailedError, SkippedError, Target


def run_drills(target: Target, drills: Mapping[str, Callable[[Target], str]], output: TextIO) -> bool:
    """Whether no drill failed. Without the first, which says that there is a server, there are no others."""
    outcomes: dict[str, str] = {}
    for name, drill in drills.items():
        outcomes[name], told = _outcome(target, drill)
        output.write(f"{outcomes[name]:5} {name:11} {told}\n")
        output.flush()
        if len(outcomes) == 1 and outcomes[name] == "FAIL":
            return False
    counts = [list(outcomes.values()).count(kind) for kind in ("pass", "FAIL", "skip")]
    output.write("{} passed, {} failed, {} skipped\n".format(*counts))
    return "FAIL" not in outcomes.values()


def _outcome(target: Target, drill: Callable[[Target], str]) -> tuple[str, str]:
    try:
        return "pass", drill(target)
    except SkippedError as error:
        return "skip", str(error)
    except FailedError as error:
        return "FAIL", str(error)
    except (httpx.HTTPError, OSError) as error:
        return "FAIL", f"{type(error).__name__}: {error}"
    except (LookupError, TypeError, ValueError) as error:  # what a server that promises otherwise sends
        return "FAIL", f"an answer is not as expected: {type(error).__name__}: {error}"
