"""The tests that are marked `gpu`, in folders whose tests need no package beyond torch, triton and pytest."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.place import Place

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests/engine/kernels/triton", "tests/engine/execution", "tests/laws")
FILES = {
    "tests/engine/execution": ("test_link.py", "test_memory_plan.py"),
    "tests/laws": ("test_recorded_steps_on_a_gpu.py",),
}


def own_tests(place: Place) -> Figures:
    """How many passed and failed, folder by folder; a tiny run only finds them."""
    if find_spec("pytest") is None:
        raise ModuleNotFoundError("no pytest", name="pytest")
    figures: Figures = {}
    failed = []
    for folder in FOLDERS:
        paths = [f"{folder}/{name}" for name in FILES.get(folder, ("",))]
        command = [
            sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "addopts=", "-o", "filterwarnings=default",
            *(["-n", "8"] if find_spec("xdist") and not place.is_tiny else []),
            "-p", "no:cacheprovider", f"--confcutdir={folder}", *paths,
        ]  # fmt: skip
        command += ["--collect-only"] if place.is_tiny else ["--maxfail=20"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        figures[folder] = summary_of(found.stdout, found.stderr, found.returncode)
        if found.returncode:
            failed.append(folder)
            print(found.stdout[-6000:], found.stderr[-2000:], file=sys.stderr)
    return figures | {"failed": failed}


def summary_of(output: str, errors: str, status: int) -> str:
    """pytest's last line of counts, or what it complained of."""
    counts = re.findall(
        r"^.*\b(?:passed|failed|error|collected|tests? (?:collected|ran)).*$", output, re.MULTILINE
    )
    if counts:
        return counts[-1].strip("= ")
    return f"exit status {status}: {(errors or output).strip()[-300:]}"
