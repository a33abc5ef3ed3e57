"""Which device and dtype torch is to compute on."""

import torch

from engine.config import CacheConfig, ModelConfig
from engine.errors import ConfigError

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
