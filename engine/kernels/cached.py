"""How keys and values are held in the cache: as numbers of a floating dtype, or as 8-bit codes.

A head's vector in an int8 cache is D codes of -127 .. 127 and, behind them, the float32 that one of
them is worth, so that whoever moves a slot moves all of it. A code is off by at most 1/254 of the
largest magnitude in its vector.
"""

import torch
from torch import Tensor

MAX_CODE = 127
SCALE_BYTES = 4


def scale_bytes(dtype: torch.dtype) -> int:
    """Bytes that stand beside a head's vector."""
    return SCALE_BYTES if dtype == torch.int8 else 0


def to_cached(heads: Tensor, dtype: torch.dtype) -> Tensor:
    """[T, K, D] as the cache holds it: [T, K, D], of int8 [T, K, D + 4]."""
    if dtype != torch.int8:
        return heads.to(dtype)
    wide = heads.float()
    top = wide.abs().amax(dim=-1, keepdim=True)  # [T, K, 1]
    inverse = torch.where(top > 0, MAX_CODE / top, 0.0)
    codes = (wide * inverse).round_().to(torch.int8)
    return torch.cat((codes, (top / MAX_CODE).view(torch.int8)), dim=-1)


def from_cached(cached: Tensor, dtype: torch.dtype) -> Tensor:
    """Cached [n, K, D or D + 4] as [n, K, D] of the dtype that is computed in."""
    if cached.dtype != torch.int8:
        return cached.to(dtype)
    scales = cached[..., -SCALE_BYTES:].contiguous().view(torch.float32)  # [n, K, 1]
    return (cached[..., :-SCALE_BYTES] * scales).to(dtype)
