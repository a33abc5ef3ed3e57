"""`choose_native`: whether the native kernels compute, and if not, why."""

import logging

from engine.errors import ConfigError
from engine.kernels.cpu.context import KernelContext

logger = logging.getLogger(__name__)

NOT_BUILT = "the native ones were not built when ringserve was installed, which takes a C++20 compiler"
NO_VECTORS = "this CPU has no instruction set on which the native ones are faster"


def choose_native(
    device_type: str,
    dtype: str,
    kernels: str,
    num_threads: int,
    kv_dtype: str = "auto",
) -> KernelContext | None:
    """The native kernels where setting `kernels` asks for or allows them, None for the reference.

    They compute on a CPU, with weights as stored and a cache in bfloat16 or int8, so `auto` takes them
    where no other `dtype` was asked for. Says once why the reference computes where they were wanted.
    ConfigError where `native` cannot be had.
    """
    if kernels in ("reference", "triton"):
        return None
    obstacle = _obstacle_to_native(device_type, dtype, kv_dtype)
    native = KernelContext.open(num_threads) if obstacle is None else None
    if native is not None and (native.is_vectorised or kernels == "native"):
        return native
    if kernels == "native":
        raise ConfigError(f"kernels is 'native', but {obstacle or NOT_BUILT}; use --kernels auto")
    if obstacle is None:
        logger.warning("the reference kernels compute: %s", NOT_BUILT if native is None else NO_VECTORS)
    elif _obstacle_to_native(device_type, dtype, "auto") is None:
        logger.warning("the reference kernels compute, more slowly: %s", obstacle)
    return None


def _obstacle_to_native(device_type: str, dtype: str, kv_dtype: str) -> str | None:
    if device_type != "cpu":
        return f"the device is {device_type} and they compute on a CPU"
    if dtype not in ("auto", "bfloat16"):
        return f"dtype is {dtype} and they cache in bfloat16"
    if kv_dtype in ("float32", "fp8"):
        return f"kv_dtype is {kv_dtype} and they cache in bfloat16 or int8"
    return None
