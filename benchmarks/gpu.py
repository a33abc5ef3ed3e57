"""Everything that only a GPU can show, with one command: is it right, how fast is it, where does time go.

    python -m benchmarks.gpu [--out FOLDER] [--only PART …] [--again] [--tiny]

Each part runs in a process of its own with a limit on its time, so that one that fails ends no other, and
writes its result as soon as it is there: the same command goes on where an earlier one ended, and FOLDER
always has the report of what is known. `--again` measures anew. `--tiny` runs every part on the host, on
a tiny model, to try the script itself. Needs torch for CUDA, triton and numpy; what needs more says so
and is left out. docs/gpu.md tells what is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.on_gpu.report import failures, to_markdown  # noqa: E402  the path comes first


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is not yet known; 1 if anything failed or does not hold."""
    from benchmarks.on_gpu.parts import PARTS  # noqa: PLC0415  torch is loaded when it is clear what to do

    names = [part.name for part in PARTS]
    flags = parser(names).parse_args(words)
    if not flags.tiny:
        from benchmarks.on_gpu.place import Place  # noqa: PLC0415  as above

        Place.choose(is_tiny=False)  # says at once that there is no GPU
    flags.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for part in PARTS:
        file = flags.out / f"{part.name}.json"
        if part.name not in (flags.only or names) or (_is_done(file, flags.tiny) and not flags.again):
            continue
        if time.monotonic() - start > flags.limit_s:
            print(f"{part.name}: left for the next run, {flags.limit_s:.0f} s are over", flush=True)
            continue
        print(f"{part.name}: {part.sentence} …", end=" ", flush=True)
        outcome = measure(part.name, file, part.limit_s, is_tiny=flags.tiny)
        print(f"{outcome['state']}, {outcome['seconds']} s", flush=True)
        write_report(flags.out, names, is_tiny=flags.tiny)
    outcomes = write_report(flags.out, names, is_tiny=flags.tiny)
    complaints = failures(outcomes)
    for complaint in complaints:
        print(f"NOT RIGHT  {complaint}")
    print(f"{flags.out / 'report.md'}, {time.monotonic() - start:.0f} s")
    return int(bool(complaints))


def measure(name: str, file: Path, limit_s: float, *, is_tiny: bool) -> dict[str, object]:
    """Run a part in its process; its outcome, which is in `file` too."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.on_gpu",
        name,
        str(file.resolve()),
        *(["--tiny"] if is_tiny else []),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    file.unlink(missing_ok=True)
    start = time.monotonic()
    log = file.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            process.wait(limit_s)
            state, reason = "failed", f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            state, reason = "out of time", f"ended after {limit_s:.0f} s"
            os.killpg(process.pid, 9)  # a session of its own, with all that it started
            process.wait()
    if file.exists() and state == "failed":
        return json.loads(file.read_text())
    seconds = round(time.monotonic() - start, 1)
    reason += f"\n{log.read_text()[-3000:]}"
    outcome = {"part": name, "is_tiny": is_tiny, "state": state, "reason": reason, "seconds": seconds}
    file.write_text(json.dumps(outcome, indent=1))
    return outcome


def write_report(folder: Path, names: Sequence[str], *, is_tiny: bool) -> dict[str, dict[str, object]]:
    """Put together what is known so far as report.md and report.json; the outcomes by part."""
    found = {
        name: json.loads(file.read_text()) for name in names if (file := folder / f"{name}.json").exists()
    }
    outcomes = {name: outcome for name, outcome in found.items() if outcome["is_tiny"] == is_tiny}
    (folder / "report.md").write_text(to_markdown(outcomes, is_tiny=is_tiny))
    (folder / "report.json").write_text(json.dumps(outcomes, indent=1))
    return outcomes


def _is_done(file: Path, is_tiny: bool) -> bool:
    if not file.exists():
        return False
    outcome = json.loads(file.read_text())
    return outcome["state"] in ("done", "skipped") and outcome["is_tiny"] == is_tiny


def parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """The command line; `names` are the parts that there are."""
    result = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    result.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder for results")
    result.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    result.add_argument("--again", action="store_true", help="measure what is known already too")
    result.add_argument("--tiny", "--dry-run", action="store_true", help="a tiny model on the host")
    result.add_argument("--limit-s", type=float, default=480.0, help="begin no part after so long")
    return result


if __name__ == "__main__":
    sys.exit(main())
