"""A `LayerKit` on the CPU with the reference kernels, and layers filled with random weights."""

import torch
from torch import nn

from engine.kernels.ops import REFERENCE
from engine.layers.kit import LayerKit

CPU = torch.device("cpu")


def cpu_kit(dtype: torch.dtype = torch.float32) -> LayerKit:
    """The plain kit: reference operations, dense projections."""
    return LayerKit.dense(REFERENCE, CPU, dtype)


def fill(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter of `module` random values."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
