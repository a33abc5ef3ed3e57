"""`GpuKernels`: what computes on a GPU, and which settings a device cannot serve.

Triton's operations where triton is, which comes with torch for CUDA; the reference otherwise, or where it is
asked for. What cannot be had is refused with what can.
"""

import logging
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from engine.config import CacheConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.plain_draw import DrawColumns, DrawKind, DrawPlainly, draw_plainly
from engine.kernels import rounded
from engine.kernels.ops import REFERENCE, Ops
from engine.layers.kit import LayerKit
from engine.layers.rounded import RoundRows

logger = logging.getLogger(__name__)

LEAST_FP8_CAPABILITY = (8, 9)
"""Ada; Hopper is (9, 0). Source: CUDA C++ Programming Guide, "Compute capabilities"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKernels:
    """What layers are built with, and how plain draws are made."""

    kit: LayerKit
    draw: DrawPlainly
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What there is: a device's compute capability, None for a CPU, and triton."""

    capability: tuple[int, int] | None
    has_triton: bool

    @classmethod
    def of(cls, device: torch.device) -> "Abilities":
        """Those of `device` here."""
        is_gpu = device.type == "cuda"
        capability = torch.cuda.get_device_capability(device) if is_gpu else None
        return cls(capability=capability, has_triton=is_gpu and find_spec("triton") is not None)


def choose_gpu_kernels(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, max_context: int
) -> GpuKernels:
    """The kernels for a CUDA device, for sequences of at most `max_context` positions."""
    has_triton = Abilities.of(device).has_triton
    if config.kernels == "reference" or not has_triton:
        if config.kernels != "reference":
            logger.warning(
                "the reference kernels compute: triton is not installed, which torch for CUDA brings"
            )
        return GpuKernels(
            kit=_kit(config, REFERENCE, rounded.round_rows, (device, dtype)),
            draw=draw_plainly,
            name="reference",
        )
    from engine.kernels.triton.invariant import invariant_linear  # noqa: PLC0415  an optional package
    from engine.kernels.triton.kernels import TritonKernels  # noqa: PLC0415  as above
    from engine.kernels.triton.rounding import round_rows  # noqa: PLC0415  as above
    from engine.kernels.triton.sampling import TritonSampling  # noqa: PLC0415  as above

    kernels = TritonKernels(max_context=max_context, is_uniform=config.deterministic)
    ops = Ops(
        prepare=kernels.prepare,
        norm_residual=kernels.norm_residual,
        linear=invariant_linear if config.deterministic else REFERENCE.linear,
        rotate_and_write=kernels.rotate_and_write,
        attend=kernels.attend,
        silu_mul=kernels.silu_mul,
    )
    sampling = TritonSampling()

    def draw(kind: DrawKind, logits: torch.Tensor, columns: DrawColumns) -> torch.Tensor:
        if logits.dtype != torch.float32:
            return draw_plainly(kind, logits, columns)
        return sampling.draw(logits, None if kind is DrawKind.GREEDY else columns)

    name = "triton-deterministic" if config.deterministic else "triton"
    return GpuKernels(kit=_kit(config, ops, round_rows, (device, dtype)), draw=draw, name=name)


def refuse_impossible(
    model: ModelConfig, cache: CacheConfig, abilities: Abilities, *, is_native: bool, dtype: torch.dtype
) -> None:
    """ConfigError for settings that the device or the kernels cannot serve, with what to do instead.

    `dtype` is what the model computes in; `is_native` says that the C++ kernels do.
    """
    is_gpu = abilities.capability is not None
    if model.quantization == "fp8" and not is_gpu:
        raise ConfigError(
            "quantization is 'fp8', which is multiplied on GPUs of the Ada and Hopper kind; on a CPU take int8 or int4"
        )
    if is_gpu and abilities.capability is not None and abilities.capability < LEAST_FP8_CAPABILITY:
        _refuse_fp8(model, cache, abilities.capability)
    if model.quantization == "fp8" and dtype != torch.bfloat16:
        raise ConfigError(
            f"quantization is 'fp8' and dtype {str(dtype).removeprefix('torch.')}; the products of fp8 are "
            "bfloat16, take --dtype bfloat16"
        )
    if not model.deterministic or is_native:
        return
    if not is_gpu:
        raise ConfigError(
            "deterministic is set, but the reference kernels' products on a CPU depend on how many rows they "
            "have; take --kernels native, which gives every row the same result always"
        )
    if model.kernels == "reference" or not abilities.has_triton:
        raise ConfigError("deterministic is set, which on a GPU takes Triton's kernels; take --kernels auto")
    if model.quantization == "fp8":
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
    return LayerKit.dense(ops, *place)
