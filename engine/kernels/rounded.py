"""Matrices in 8-bit floating numbers (e4m3): rows of codes, and what a code of each row is worth.

A row's largest magnitude becomes 448, the largest code, so that each number is off by at most 1/16 of
itself, but for those near nothing. Activations are rounded in the same way as they come, a row at a time,
so that a row's result does not depend on its company. This is the reference; what is multiplied with
matrix units is `torch._scaled_mm`, here as on a GPU.
Source: Micikevicius et al. 2022, FP8 formats for deep learning (arXiv 2209.05433).
"""

import torch
from torch import Tensor

CODE = torch.float8_e4m3fn
MAX_CODE = 448.0
GRAIN = 16
"""Rows and columns of a matrix must be whole numbers of these for the matrix units."""

LEAST_WORTH = 1e-12
"""Below it a row is all zeros, for whatever is multiplied with it later."""


def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """[T, in] in codes [T, in], and their worth [T, 1] float32."""
    wide = values.float()
    worth = (wide.abs().amax(dim=-1, keepdim=True) / MAX_CODE).clamp_(min=LEAST_WORTH)  # [T, 1]
    return (wide / worth).clamp_(-MAX_CODE, MAX_CODE).to(CODE), worth


def scaled_linear(
    hidden: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """hidden · weightᵀ + bias of rounded rows [T, in] and [out, in], as [T, out] of `dtype`.

    `dtype` is bfloat16 where rows have a worth of their own: the matrix units give no other.
    """
    codes, worth = hidden
    weight_codes, weight_worth = weight
    return torch._scaled_mm(
        codes, weight_codes.t(), scale_a=worth, scale_b=weight_worth.t(), bias=bias, out_dtype=dtype
    )
