"""What is chosen, or refused, without torch: threads, sizes of steps and pool, whether there can be a GPU."""

import ctypes
import os
from pathlib import Path

from engine.config import CacheConfig, ModelConfig, SchedulingConfig
from engine.errors import ConfigError

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CPU_MIXED_TOKENS = 128
DEFAULT_CPU_CACHE_BYTES = 256 << 20
CUDA_DRIVER = "libcuda.so.1"
AMD_DEVICE = Path("/dev/kfd")


def may_have_gpu(driver: str = CUDA_DRIVER, amd_device: Path = AMD_DEVICE) -> bool:
    """Whether torch, whose import takes seconds, need be asked for a GPU: it finds none without these."""
    if amd_device.exists():
        return True
    try:
        ctypes.CDLL(driver)
    except OSError:
        return False
    return True


def choose_num_threads(config: ModelConfig) -> int:
    """As many threads as configured, or as cores this process may use."""
    return config.cpu_threads or num_usable_cores()


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


def choose_mixed_tokens(config: SchedulingConfig, device_type: str) -> int:
    """As many as `config` names; else few on a CPU, where a step's time grows with every token of it.

    Answers that are being streamed wait for the prompts in their step. With 128 tokens they wait a third to half as
    long as with 512, for the same output of all together (docs/performance.md).
    """
    if config.max_mixed_tokens is not None:
        return config.max_mixed_tokens
    return config.max_step_tokens if device_type == "cuda" else CPU_MIXED_TOKENS


def choose_steps_in_flight(config: SchedulingConfig, device_type: str) -> int:
    """As many as `config` names; else one of look-ahead where the device computes while the host goes on."""
    if config.steps_in_flight is not None:
        return config.steps_in_flight
    return 2 if device_type == "cuda" else 1


def cpu_cache_bytes(config: CacheConfig) -> int:
    """How many bytes the pool gets on a CPU; on a GPU `memory_plan` says."""
    return DEFAULT_CPU_CACHE_BYTES if config.kv_cache_bytes is None else config.kv_cache_bytes


def refuse_on_cpu(model: ModelConfig, *, is_native: bool) -> None:
    """ConfigError for settings that a CPU cannot serve, with what to do instead.

    `is_native` says that the C++ kernels compute.
    """
    if model.quantization == "fp8":
        raise ConfigError(
            "quantization is 'fp8', which is multiplied on GPUs of the Ada and Hopper kind; on a CPU take int8 "
            "or int4"
        )
    if model.deterministic and not is_native:
        raise ConfigError(
            "deterministic is set, but the reference kernels' products on a CPU depend on how many rows they "
            "have. The native kernels give every row the same result always: ask for no --kernels reference, "
            "no --dtype and no --kv-dtype but bfloat16 or int8"
        )
