"""What a figure was measured on, in words."""

import os
import platform
from pathlib import Path

WORTH_NAMING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def describe_machine() -> dict[str, object]:
    """Processor, cores in reach, memory, system; empty words for what cannot be told."""
    return {
        "processor": _cpu_field("model name") or platform.machine(),
        "instructions": [name for name in WORTH_NAMING if name in _cpu_field("flags").split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def _cpu_field(name: str) -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
