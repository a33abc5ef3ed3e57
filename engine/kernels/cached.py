"""How keys and values are held in the cache: as numbers of a floating dtype, or as 8-bit codes.

A head's vector in a cache of codes is D of them and, behind them, the float32 that one of them is worth,
so that whoever moves a slot moves all of it. Of int8 codes are -127 .. 127, and off by at most 1/254 of
the largest magnitude in the vector; of float8_e4m3fn they reach 448, and are off by at most 1/16 of
themselves.
"""

import torch
from torch import Tensor

MAX_CODES = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
SCALE_BYTES = 4


def holds_codes(dtype: torch.dtype) -> bool:
    """Whether a cache of `dtype` holds codes and their worth."""
    return dtype in MAX_CODES


def scale_bytes(dtype: torch.dtype) -> int:
    """Bytes that stand beside a head's vector."""
    return SCALE_BYTES if holds_codes(dtype) else 0


def to_cached(heads: Tensor, dtype: torch.dtype) -> Tensor:
    """[T, K, D] as the cache holds it: [T, K, D], of codes [T, K, D + 4]."""
    if not holds_codes(dtype):
        return heads.to(dtype)
    wide = heads.float()
    top = wide.abs().amax(dim=-1, keepdim=True)  # [T, K, 1]
    scaled = wide * torch.where(top > 0, MAX_CODES[dtype] / top, 0.0)
    codes = scaled.round_().to(dtype) if dtype == torch.int8 else scaled.to(dtype)
    return torch.cat((codes, (top / MAX_CODES[dtype]).view(dtype)), dim=-1)


def from_cached(cached: Tensor, dtype: torch.dtype) -> Tensor:
    """Cached [n, K, D or D + 4] as [n, K, D] of the dtype that is computed in."""
    if not holds_codes(cached.dtype):
        return cached.to(dtype)
    scales = cached[..., -SCALE_BYTES:].contiguous().view(torch.float32)  # [n, K, 1]
    return (cached[..., :-SCALE_BYTES].float() * scales).to(dtype)


def write(cached: Tensor, slots: Tensor, heads: Tensor) -> None:
    """Put `heads` [T, K, D] into `slots` [T] of the cache `cached`, in its type."""
    held = to_cached(heads, cached.dtype)
    if holds_codes(cached.dtype):  # torch moves no 8-bit floating numbers by index, but bytes
        cached, held = cached.view(torch.uint8), held.view(torch.uint8)
    cached.index_copy_(0, slots, held)
