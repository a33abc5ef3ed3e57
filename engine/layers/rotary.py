"""`Rotary`: cosines and sines of absolute positions, and the scalings that stretch a context.

Only the angles are made here; turning queries and keys by them is an operation of `Ops`.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from engine.model_spec import RopeSpec


def inverse_frequencies(rope: RopeSpec, head_size: int) -> Tensor:
    """[D / 2] float32: the angle per position by which each pair of dimensions turns.

    Computed in float32 throughout, as the families were trained.
    Source: Su et al. 2021, RoFormer (arXiv 2104.09864).
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32) / head_size  # [D / 2]
    plain = 1.0 / rope.theta**exponents
    match rope.scaling:
        case "none":
            return plain
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _llama3(plain, rope)
        case "factors":
            return plain / torch.tensor(rope.frequency_factors, dtype=torch.float32)
        case other:
            raise AssertionError(f"no reader of checkpoints lets rope scaling {other!r} through")


def _llama3(plain: Tensor, rope: RopeSpec) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended.

    A wavelength is short when the original context holds more than `high_freq_factor` of it, long
    when it holds fewer than `low_freq_factor`.
    Source: Llama 3.1 model card and reference code, "rope scaling".
    """
    num_turns = rope.original_max_context * plain / (2 * math.pi)
    share_kept = (num_turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    share_kept = share_kept.clamp(0.0, 1.0)
    return share_kept * plain + (1.0 - share_kept) * plain / rope.factor


class Angles(Protocol):
    """Makes a step's cosines and sines, once for all layers."""

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [T] give (cos, sin), each [T, D / 2] in the model's dtype."""
        ...


class MakeRotary(Protocol):
    """How a decoder comes by its angles."""

    def __call__(self, rope: RopeSpec, head_size: int, device: torch.device, dtype: torch.dtype) -> Angles:
        """The angles of heads of `head_size`, on a device and in a dtype."""
        ...


class Rotary:
    """Makes a step's cosines and sines, once for all layers."""

    def __init__(self, rope: RopeSpec, head_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._inverse_frequencies = inverse_frequencies(rope, head_size).to(device)
        self._dtype = dtype

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [T] give (cos, sin), each [T, D / 2] in the model's dtype."""
        angles = positions.float().unsqueeze(-1) * self._inverse_frequencies  # [T, D / 2]
        return angles.cos().to(self._dtype), angles.sin().to(self._dtype)
