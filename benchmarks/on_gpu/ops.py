"""Which operations, projections and draws a measured model is built with."""

import torch

from benchmarks.on_gpu.place import Place
from engine.config import ModelConfig
from engine.execution.gpu_kernels import GpuKernels, choose_gpu_kernels
from engine.execution.plain_draw import draw_plainly
from engine.kernels.ops import REFERENCE, Ops
from engine.kernels.rounded import round_rows
from engine.layers.kit import LayerKit


def kernels_for(place: Place, quantization: str = "none", *, is_deterministic: bool = False) -> GpuKernels:
    """Those of the engine on a GPU; on the host the reference stands for them."""
    dtype = torch.bfloat16 if quantization == "fp8" else place.dtype  # the matrix units give no other
    config = ModelConfig(
        path="random", model_id="random", quantization=quantization, deterministic=is_deterministic
    )
    if place.device.type == "cuda":
        return choose_gpu_kernels(config, place.device, dtype, place.spec.max_context)
    kit = LayerKit.dense(REFERENCE, place.device, dtype)
    if quantization == "fp8":
        kit = LayerKit.rounded(REFERENCE, round_rows, place.device, dtype)
    return GpuKernels(kit=kit, draw=draw_plainly, name="reference")


def ops_for(place: Place) -> Ops:
    """The operations alone."""
    return kernels_for(place).kit.ops
