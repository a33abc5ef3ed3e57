"""Which device and dtype to compute on, and how much memory it has."""

import os
from pathlib import Path

import torch

from engine.config import CacheConfig, ModelConfig, SchedulingConfig
from engine.errors import ConfigError

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CPU_MIXED_TOKENS = 128
DEFAULT_CPU_CACHE_BYTES = 256 << 20
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
CACHE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


def choose_device(config: ModelConfig) -> torch.device:
    """The device that `config` names; auto takes a GPU where there is one.

    Raises ConfigError where CUDA is asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("device is cuda, but torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if has_cuda and config.device != "cpu" else "cpu")


def requested_dtype(config: ModelConfig) -> torch.dtype | None:
    """The dtype that `config` names; None where the choice is left to us."""
    return DTYPES.get(config.dtype)


def choose_cache_dtype(config: CacheConfig, computed_in: torch.dtype) -> torch.dtype:
    """The dtype of keys and values that `config` names; auto is what the model computes in."""
    return computed_in if config.kv_dtype == "auto" else CACHE_DTYPES[config.kv_dtype]


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype that `config` names; auto takes bfloat16 where the device multiplies it natively."""
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 dot products (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def set_cpu_threads(config: ModelConfig) -> int:
    """Let torch compute on as many threads as configured, or as cores this process may use."""
    num_threads = config.cpu_threads or num_usable_cores()
    torch.set_num_threads(num_threads)
    return num_threads


def num_usable_cores(quota_file: Path = CGROUP_QUOTA) -> int:
    """Cores that this process may run on, no more than a container's quota of processor time pays for.

    A quota of 150 ms in each period of 100 ms pays for two threads. More threads than that would
    wait for each other at every operation.
    Source: the kernel's cgroup v2 documentation, cpu.max.
    """
    num_cores = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here
        return num_cores
    return num_cores if quota == "max" else max(1, min(num_cores, -(-int(quota) // int(period))))


def choose_mixed_tokens(config: SchedulingConfig, device: torch.device) -> int:
    """As many as `config` names; else few on a CPU, where a step's time grows with every token of it.

    Answers that are being streamed wait for the prompts in their step. With 128 tokens they wait a third to half as
    long as with 512, for the same output of all together (docs/performance.md).
    """
    if config.max_mixed_tokens is not None:
        return config.max_mixed_tokens
    return config.max_step_tokens if device.type == "cuda" else CPU_MIXED_TOKENS


def choose_steps_in_flight(config: SchedulingConfig, device: torch.device) -> int:
    """As many as `config` names; else one of look-ahead where the device computes while the host goes on."""
    if config.steps_in_flight is not None:
        return config.steps_in_flight
    return 2 if device.type == "cuda" else 1


def cpu_cache_bytes(config: CacheConfig) -> int:
    """How many bytes the pool gets on a CPU; on a GPU `memory_plan` says."""
    return DEFAULT_CPU_CACHE_BYTES if config.kv_cache_bytes is None else config.kv_cache_bytes
