"""Which operations and projections a measured model is built with."""

import torch

from benchmarks.on_gpu.place import Place
from engine.kernels.ops import REFERENCE, Ops
from engine.kernels.rounded import round_rows
from engine.layers.kit import LayerKit
from engine.layers.rounded import RoundRows


def kit_for(place: Place, quantization: str = "none", *, is_deterministic: bool = False) -> LayerKit:
    """The kit as the engine would choose it."""
    ops = ops_for(place, is_deterministic=is_deterministic)
    if quantization == "fp8":
        dtype = torch.bfloat16  # the matrix units give no other
        return LayerKit.rounded(ops, round_rows_for(place), place.device, dtype)
    return LayerKit.dense(ops, place.device, place.dtype)


def ops_for(place: Place, *, is_deterministic: bool = False) -> Ops:
    """Triton's on a GPU, the reference elsewhere."""
    if place.device.type != "cuda":
        return REFERENCE
    from engine.kernels.triton.invariant import invariant_linear  # noqa: PLC0415  as below
    from engine.kernels.triton.kernels import TritonKernels  # noqa: PLC0415  comes with torch for CUDA alone

    kernels = TritonKernels(max_context=place.spec.max_context, is_uniform=is_deterministic)
    return Ops(
        prepare=kernels.prepare,
        norm_residual=kernels.norm_residual,
        linear=invariant_linear if is_deterministic else REFERENCE.linear,
        rotate_and_write=kernels.rotate_and_write,
        attend=kernels.attend,
        silu_mul=kernels.silu_mul,
    )


def round_rows_for(place: Place) -> RoundRows:
    """How activations are rounded to 8-bit floating numbers."""
    if place.device.type != "cuda":
        return round_rows
    from engine.kernels.triton.rounding import round_rows as round_rows_at_once  # noqa: PLC0415  as above

    return round_rows_at_once
