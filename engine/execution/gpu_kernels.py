"""`GpuKernels`: what computes on a GPU, and which settings a device cannot serve.

Triton's operations where triton is, which comes with torch for CUDA; the reference otherwise, or where it is
asked for. What cannot be had is refused with what can.
"""

from dataclasses import dataclass

import torch

from engine.config import CacheConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.plain_draw import DrawColumns, DrawKind, DrawPlainly, draw_plainly
from engine.kernels import rounded
from engine.kernels.ops import REFERENCE, Ops, select_ops
from engine.layers.kit import LayerKit
from engine.layers.rounded import RoundRows

LEAST_FP8_CAPABILITY = (8, 9)
"""Ada; Hopper is (9, 0). Source: CUDA C++ Programming Guide, "Compute capabilities"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKernels:
    """What layers are built with, and how plain draws are made."""

    kit: LayerKit
    draw: DrawPlainly
    name: str


def choose_gpu_kernels(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, max_context: int
) -> GpuKernels:
    """The kernels for a CUDA device, for sequences of at most `max_context` positions.

    ConfigError where Triton's are asked for, or needed, and cannot be had.
    """
    ops = select_ops(
        device, dtype, config.kernels, max_context=max_context, is_deterministic=config.deterministic
    )
    if ops is REFERENCE:
        if config.deterministic:
            raise ConfigError(
                "deterministic is set, which on a GPU takes Triton's kernels, and the reference computes; take "
                "--kernels triton, which says what it lacks"
            )
        kit = _kit(config, ops, rounded.round_rows, (device, dtype))
        return GpuKernels(kit=kit, draw=draw_plainly, name="reference")
    from engine.kernels.triton.rounding import round_rows  # noqa: PLC0415  an optional package
    from engine.kernels.triton.sampling import TritonSampling  # noqa: PLC0415  as above

    sampling = TritonSampling()

    def draw(kind: DrawKind, logits: torch.Tensor, columns: DrawColumns) -> torch.Tensor:
        return sampling.draw(logits, None if kind is DrawKind.GREEDY else columns)

    name = "triton-deterministic" if config.deterministic else "triton"
    return GpuKernels(kit=_kit(config, ops, round_rows, (device, dtype)), draw=draw, name=name)


def capability_of(device: torch.device) -> tuple[int, int]:
    """A GPU's compute capability."""
    return torch.cuda.get_device_capability(device)


def refuse_impossible(
    model: ModelConfig, cache: CacheConfig, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    """ConfigError for settings that a GPU cannot serve, with what to do instead.

    `dtype` is what the model computes in.
    """
    if capability < LEAST_FP8_CAPABILITY:
        _refuse_fp8(model, cache, capability)
    if model.quantization == "fp8" and dtype != torch.bfloat16:
        raise ConfigError(
            f"quantization is 'fp8' and dtype {str(dtype).removeprefix('torch.')}; the products of fp8 are "
            "bfloat16, take --dtype bfloat16"
        )
    if model.quantization == "fp8" and model.deterministic:
        raise ConfigError(
            "deterministic is set with quantization 'fp8', whose products depend on how many rows they have; "
            "take one of the two"
        )


def _refuse_fp8(model: ModelConfig, cache: CacheConfig, capability: tuple[int, int]) -> None:
    own = f"{capability[0]}.{capability[1]}"
    if model.quantization == "fp8":
        raise ConfigError(
            f"quantization is 'fp8', and this GPU has compute capability {own}; 8.9 (Ada) or more is needed, "
            "leave it out"
        )
    if cache.kv_dtype == "fp8":
        raise ConfigError(
            f"kv_dtype is 'fp8', and this GPU has compute capability {own}; 8.9 (Ada) or more is needed, "
            "take int8"
        )


def _kit(
    config: ModelConfig, ops: Ops, round_rows: RoundRows, place: tuple[torch.device, torch.dtype]
) -> LayerKit:
    if config.quantization == "fp8":
        return LayerKit.rounded(ops, round_rows, *place)
    if config.quantization != "none":
        return LayerKit.grouped(ops, config.quantization, *place)
    return LayerKit.dense(ops, *place)
