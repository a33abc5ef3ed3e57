"""`LayerKit`: what a layer is built with, so that no layer chooses kernels, devices or weight formats."""

from dataclasses import dataclass

import torch
from torch import nn

from engine.kernels.cpu.native import NativeKernels
from engine.kernels.ops import Ops
from engine.layers.grouped import GroupedLinears
from engine.layers.linear import DenseLinears, LinearFactory
from engine.layers.packed import LookedUpRotary, PackedLinears
from engine.layers.rotary import MakeRotary, Rotary
from engine.layers.rounded import RoundedLinears, RoundRows


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKit:
    """The operations, the makers of projections and angles, and where all other parameters live."""

    ops: Ops
    linears: LinearFactory
    device: torch.device
    dtype: torch.dtype
    rotary: MakeRotary = Rotary

    @classmethod
    def dense(cls, ops: Ops, device: torch.device, dtype: torch.dtype) -> "LayerKit":
        """A kit whose projections hold plain matrices of `dtype`."""
        return cls(ops=ops, linears=DenseLinears(ops.linear, device, dtype), device=device, dtype=dtype)

    @classmethod
    def packed(cls, ops: Ops, kernels: NativeKernels) -> "LayerKit":
        """A kit whose projections stay in the checkpoint's precision; all else is float32 on the CPU."""
        return cls(
            ops=ops,
            linears=PackedLinears(kernels),
            device=torch.device("cpu"),
            dtype=torch.float32,
            rotary=LookedUpRotary,
        )

    @classmethod
    def rounded(
        cls, ops: Ops, round_hidden: RoundRows, device: torch.device, dtype: torch.dtype
    ) -> "LayerKit":
        """A kit whose projections hold 8-bit floating numbers; tables and all else are of `dtype`."""
        linears = RoundedLinears(ops.linear, round_hidden, device, dtype)
        return cls(ops=ops, linears=linears, device=device, dtype=dtype)

    @classmethod
    def grouped(cls, ops: Ops, name: str, device: torch.device, dtype: torch.dtype) -> "LayerKit":
        """A kit whose projections hold codes of the format `name` in groups of 32, embeddings among them."""
        return cls(
            ops=ops, linears=GroupedLinears(ops.linear, name, device, dtype), device=device, dtype=dtype
        )

    def parameter(self, *shape: int) -> nn.Parameter:
        """An uninitialised parameter without gradient, to be filled by the loader."""
        return nn.Parameter(torch.empty(shape, device=self.device, dtype=self.dtype), requires_grad=False)
