"""Cosines and sines of absolute positions for the native kernels, and the scalings that stretch a context.

The same as `engine/layers/rotary.py`, which is torch's, but for rounding.
"""

import math

import numpy as np

from engine.kernels.cpu.memory import Floats, empty_floats
from engine.model_spec import RopeSpec


def angle_tables(rope: RopeSpec, head_size: int, num_positions: int) -> tuple[Floats, Floats]:
    """(cos, sin) of positions from 0 on, each [positions, D / 2]."""
    positions = np.arange(num_positions, dtype=np.float32)
    angles = positions[:, None] * inverse_frequencies(rope, head_size)  # [positions, D / 2]
    cos, sin = empty_floats(*angles.shape), empty_floats(*angles.shape)
    return np.cos(angles, out=cos), np.sin(angles, out=sin)


def inverse_frequencies(rope: RopeSpec, head_size: int) -> Floats:
    """[D / 2]: the angle per position by which each pair of dimensions turns.

    Exponents, powers and quotients are each rounded to float32, as where the families were trained: one
    rounding of it all would be nearer to the formula and further from them.
    Source: Su et al. 2021, RoFormer (arXiv 2104.09864).
    """
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)  # [D / 2]
    powers = np.power(np.float32(rope.theta), exponents, dtype=np.float64).astype(np.float32)
    plain: Floats = np.float32(1.0) / powers
    match rope.scaling:
        case "none":
            return plain
        case "linear":
            return plain / np.float32(rope.factor)
        case "llama3":
            return _llama3(plain, rope)
        case "factors":
            factors: Floats = np.array(rope.frequency_factors, dtype=np.float32)
            return plain / factors
        case other:
            raise AssertionError(f"no reader of checkpoints lets rope scaling {other!r} through")


def _llama3(plain: Floats, rope: RopeSpec) -> Floats:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended.

    A wavelength is short when the original context holds more than `high_freq_factor` of it, long
    when it holds fewer than `low_freq_factor`.
    Source: Llama 3.1 model card and reference code, "rope scaling".
    """
    num_turns = plain * np.float32(rope.original_max_context / (2 * math.pi))
    share_kept = (num_turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    share_kept = np.clip(share_kept, 0.0, 1.0)
    blended = share_kept * plain + (1.0 - share_kept) * plain / rope.factor
    return np.asarray(blended, dtype=np.float32)
