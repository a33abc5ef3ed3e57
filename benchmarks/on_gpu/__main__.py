"""One part of the measurement, in this process: `python -m benchmarks.on_gpu PART FILE [--tiny]`.

Its figures go to FILE as JSON. What it cannot do for want of a package is no failure: FILE says what is missing.
"""

import argparse
import json
import time
import traceback
from pathlib import Path

from benchmarks.on_gpu.parts import PARTS, part_named
from benchmarks.on_gpu.place import Place


def main(words: list[str] | None = None) -> int:
    """Measure and write; 1 if it failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=[part.name for part in PARTS])
    parser.add_argument("file", type=Path)
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args(words)
    place = Place.choose(is_tiny=flags.tiny)
    start = time.monotonic()
    outcome: dict[str, object] = {"part": flags.part, "is_tiny": flags.tiny}
    try:
        outcome["figures"] = part_named(flags.part).measure(place)
        outcome["state"] = "done"
    except ModuleNotFoundError as error:
        outcome |= {"state": "skipped", "reason": f"the package {error.name} is not installed here"}
    except Exception:  # noqa: BLE001  whatever it is, the other parts go on, and the report shows it
        outcome |= {"state": "failed", "reason": traceback.format_exc()}
    outcome["seconds"] = round(time.monotonic() - start, 1)
    flags.file.write_text(json.dumps(outcome, indent=1))
    return int(outcome["state"] == "failed")


if __name__ == "__main__":
    raise SystemExit(main())
