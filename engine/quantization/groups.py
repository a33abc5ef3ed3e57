"""Weights in groups of 32 along a row, as 8-bit or 4-bit codes, in the block formats of GGUF files.

A group of `int8` is d · c with c in -127 .. 127 (Q8_0); one of `int4` is d · c + m with c in 0 .. 15
(Q4_1). Both numbers of a group are float16. Nothing here knows checkpoints or models.
Source: the GGUF specification, and ggml's `ggml-common.h`, for the blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 32
MAX_CODE_8, MAX_CODE_4 = 127, 15
SPANS = (1.0, 0.9, 0.8)  # shares of a group's range that its sixteen codes are tried on
LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Quantised rows; n groups in each."""

    codes: Tensor  # [rows, n, 32] float32, whole numbers
    scales: Tensor  # [rows, n, 1] float16
    minima: Tensor | None  # [rows, n, 1] float16; None where codes are centred on 0

    def values(self) -> Tensor:
        """[rows, 32 n] float32: what the codes stand for."""
        values = self.codes * self.scales.float()
        if self.minima is not None:
            values += self.minima.float()
        return values.flatten(1)

    def blocks(self) -> Tensor:
        """[rows, bytes] uint8: block after block, as a GGUF file has them."""
        numbers = self.scales if self.minima is None else torch.cat((self.scales, self.minima), dim=-1)
        header = numbers.view(torch.uint8)  # [rows, n, 2 or 4]
        if self.minima is None:
            return torch.cat((header, self.codes.to(torch.int8).view(torch.uint8)), dim=-1).flatten(1)
        codes = self.codes.to(torch.uint8)
        nibbles = codes[..., : GROUP // 2] | codes[..., GROUP // 2 :] << 4  # [rows, n, 16]
        return torch.cat((header, nibbles), dim=-1).flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFormat:
    """How rows are quantised; `type_name` is the GGUF type of their blocks."""

    type_name: str
    quantise: Callable[[Tensor], Groups]
    block_bytes: int


def to_int8(rows: Tensor) -> Groups:
    """[rows, in] float32 in symmetric 8-bit codes: off by at most half of 1/127 of a group's largest magnitude.

    Rounding that number to float16 adds up to 1/32 of it. Not finite where a value is not, or where it
    is beyond float16's range of numbers.
    """
    groups = rows.reshape(len(rows), -1, GROUP)  # [rows, n, 32]
    scales = (groups.abs().amax(dim=-1, keepdim=True) / MAX_CODE_8).half()  # [rows, n, 1]
    codes = (groups * _inverse(scales)).round_().clamp_(-MAX_CODE_8, MAX_CODE_8)
    return Groups(codes=codes, scales=scales, minima=None)


def to_int4(rows: Tensor) -> Groups:
    """[rows, in] float32 in affine 4-bit codes, of the smallest squared error that was found in each group.

    The sixteen codes are spread over the whole range of a group and over its inner shares; to the codes
    that this gives, d and m are fitted by least squares.
    """
    groups = rows.reshape(len(rows), -1, GROUP)  # [rows, n, 32]
    low, high = groups.aminmax(dim=-1, keepdim=True)
    best = _affine(groups, low.half(), ((high - low) / MAX_CODE_4).half())
    error = _squared_error(groups, best)
    for span in SPANS:
        step = (high - low) * (span / MAX_CODE_4)
        first = low + (high - low) * ((1.0 - span) / 2)
        codes = ((groups - first) * _inverse(step)).round_().clamp_(0, MAX_CODE_4)
        found = _affine(groups, *_fitted(groups, codes))
        found_error = _squared_error(groups, found)
        is_better = found_error < error
        best, error = _better(is_better, found, best), torch.where(is_better, found_error, error)
    return best


INT8 = GroupFormat(type_name="Q8_0", quantise=to_int8, block_bytes=34)
INT4 = GroupFormat(type_name="Q4_1", quantise=to_int4, block_bytes=20)


def _inverse(scales: Tensor) -> Tensor:
    """1 / scale in float32, 0 for a group whose values are all the same."""
    wide = scales.float()
    return torch.where(wide == 0, 0.0, 1.0 / wide)


def _affine(groups: Tensor, minima: Tensor, scales: Tensor) -> Groups:
    codes = ((groups - minima.float()) * _inverse(scales)).round_().clamp_(0, MAX_CODE_4)
    return Groups(codes=codes, scales=scales, minima=minima)


def _fitted(groups: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """(m, d) in float16 for which codes · d + m is closest to the values; d is 0 where all codes are equal."""
    mean_code = codes.mean(dim=-1, keepdim=True)
    mean = groups.mean(dim=-1, keepdim=True)
    deviations = codes - mean_code
    spread = deviations.square().sum(dim=-1, keepdim=True)
    scales = (deviations * groups).sum(dim=-1, keepdim=True) * _inverse(spread)
    return (mean - scales * mean_code).half(), scales.half()


def _squared_error(groups: Tensor, found: Groups) -> Tensor:
    assert found.minima is not None
    values = torch.addcmul(found.minima.float(), found.codes, found.scales.float())
    return (values - groups).square_().sum(dim=-1, keepdim=True)  # [rows, n, 1]


def _better(is_better: Tensor, found: Groups, best: Groups) -> Groups:
    assert found.minima is not None
    assert best.minima is not None
    return Groups(
        codes=torch.where(is_better, found.codes, best.codes),
        scales=torch.where(is_better, found.scales, best.scales),
        minima=torch.where(is_better, found.minima, best.minima),
    )
