"""`Ops`: the operations a layer may call, and the choice of their implementation.

A layer calls `ops.<name>` and cannot tell which implementation it got. The operations are fused
to the grain at which fast kernels are written; `engine/kernels/reference.py` says in plain torch
what each of them computes. Nothing here knows models or families.
"""

import importlib.util
import logging
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.config import KERNELS
from engine.errors import ConfigError
from engine.kernels import reference
from engine.kernels.cpu.native import NativeKernels

logger = logging.getLogger(__name__)

NO_TRITON = "triton is not installed, which torch for CUDA brings along"
LEAST_CAPABILITY = (8, 0)  # of a GPU: bfloat16 in its matrix units


class Prepare(Protocol):
    """What an implementation derives from a batch once, for all layers of the step."""

    def __call__(self, batch: Batch, cos: Tensor, sin: Tensor) -> object:
        """An opaque value for `rotate_and_write` and `attend`, valid for this step only.

        `cos` and `sin` are [T, D / 2], one row per token, in the model's dtype.
        """
        ...


class NormResidual(Protocol):
    """RMSNorm of the residual stream, after a layer's output was added to it."""

    def __call__(
        self, hidden: Tensor, residual: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(norm(hidden + residual) · weight, hidden + residual); no residual counts as zero."""
        ...


class LinearOp(Protocol):
    """hidden · weightᵀ + bias."""

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[T, in], [out, in] and [out] give [T, out]; no bias counts as zero."""
        ...


class RotateAndWrite(Protocol):
    """Rotary embedding at absolute positions, and the write into the cache."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, prepared: object
    ) -> Tensor:
        """The rotated query [T, H, D]; rotated keys and values [T, K, D] are in their slots after it."""
        ...


class Attend(Protocol):
    """Causal attention through the rotated tables."""

    def __call__(self, query: Tensor, cache: LayerCache, prepared: object, window: int | None) -> Tensor:
        """[T, H, D] gives [T, H · D]; a query sees the `window` last positions, its own included."""
        ...


class SiluMul(Protocol):
    """The gate of the feed-forward layer."""

    def __call__(self, gate_up: Tensor) -> Tensor:
        """[T, 2 F], gate before up, gives silu(gate) · up, [T, F]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """One implementation of every operation, for one device and dtype."""

    prepare: Prepare
    norm_residual: NormResidual
    linear: LinearOp
    rotate_and_write: RotateAndWrite
    attend: Attend
    silu_mul: SiluMul


REFERENCE = Ops(
    prepare=reference.prepare,
    norm_residual=reference.norm_residual,
    linear=reference.linear,
    rotate_and_write=reference.rotate_and_write,
    attend=reference.attend,
    silu_mul=reference.silu_mul,
)


def native_ops(kernels: NativeKernels) -> Ops:
    """The native operations; dense matrices, which no native model has, are the reference's."""
    return Ops(
        prepare=kernels.prepare,
        norm_residual=kernels.norm_residual,
        linear=reference.linear,
        rotate_and_write=kernels.rotate_and_write,
        attend=kernels.attend,
        silu_mul=kernels.silu_mul,
    )


def triton_ops(max_context: int | None = None, *, is_deterministic: bool = False) -> Ops:
    """The operations in Triton, for a GPU that has them; importing triton takes a second.

    For sequences of at most `max_context` positions, None where nobody knows. Deterministic ones compute a
    row alike in any company, matrix products included.
    """
    from engine.kernels.triton.invariant import invariant_linear  # noqa: PLC0415  as below
    from engine.kernels.triton.kernels import TritonKernels  # noqa: PLC0415  triton comes with torch for CUDA

    kernels = TritonKernels(max_context=max_context, is_uniform=is_deterministic)
    return Ops(
        prepare=kernels.prepare,
        norm_residual=kernels.norm_residual,
        linear=invariant_linear if is_deterministic else reference.linear,
        rotate_and_write=kernels.rotate_and_write,
        attend=kernels.attend,
        silu_mul=kernels.silu_mul,
    )


def select_ops(
    device: torch.device,
    dtype: torch.dtype,
    kernels: str,
    *,
    max_context: int | None = None,
    is_deterministic: bool = False,
) -> Ops:
    """The operations for a setting `kernels` that does not come to native ones.

    On a GPU `auto` takes Triton's, and says once why where it cannot; the reference fits every device and
    floating dtype. ConfigError for an unknown setting, and where `triton` cannot be had.
    """
    if kernels not in KERNELS:
        raise ConfigError(f"kernels is {kernels!r}; it must be one of {', '.join(KERNELS)}")
    if not dtype.is_floating_point:
        raise ConfigError(f"dtype is {dtype} on {device}; the kernels compute in floating point only")
    if kernels == "reference":
        return REFERENCE
    obstacle = _obstacle_to_triton(device, dtype)
    if obstacle is None:
        return triton_ops(max_context, is_deterministic=is_deterministic)
    if kernels == "triton":
        raise ConfigError(f"kernels is 'triton', but {obstacle}; use --kernels auto")
    if device.type == "cuda":
        logger.warning("the reference kernels compute: %s", obstacle)
    return REFERENCE


def _obstacle_to_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"the device is {device.type} and they compute on a GPU"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"dtype is {dtype} and they compute in float32, bfloat16 and float16"
    if importlib.util.find_spec("triton") is None:
        return NO_TRITON
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        own, least = (".".join(map(str, version)) for version in (capability, LEAST_CAPABILITY))
        return f"the GPU has compute capability {own} and they need {least}"
    return None
