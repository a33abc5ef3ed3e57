"""`NativeSampling`: tokens drawn from rows of logits, and scored, by the shared library.

The stages and the draw are those of `engine/execution/sampler.py`, the reference, in float32 and with
sums in float64. Equal seeds draw equal tokens but where a uniform number falls within rounding of the
border between two tokens. A row is computed by one thread, so its company changes nothing.
"""

import ctypes
import struct
from ctypes import c_int32, c_void_p

import numpy as np

from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.memory import Floats, Integers

# Seed, position, choice, top_k; temperature, top_p, min_p, typical_p, XTC's probability and threshold.
ROW = struct.Struct("<Qqii6f")  # `rs_draw`
MAX_TOP_K = 2**31 - 1

Scores = tuple[Floats, Integers, Integers, Floats]


class NativeSampling:
    """Draws and scores with the threads of `kernels`, which may compute nothing else meanwhile."""

    def __init__(self, kernels: KernelContext) -> None:
        self._kernels = kernels
        self._draw = kernels.library.rs_draw_rows
        self._draw.restype = None
        self._draw.argtypes = (c_void_p, c_void_p, c_int32, c_int32, ctypes.c_char_p, c_void_p)
        self._score = kernels.library.rs_score_rows
        self._score.restype = None
        self._score.argtypes = (
            c_void_p,
            c_void_p,
            c_int32,
            c_int32,
            *(c_void_p,) * 2,
            c_int32,
            *(c_void_p,) * 4,
        )

    def draw(self, logits: Floats, rows: bytes) -> Integers:
        """Token ids [R] of logits [R, V]; `rows` is one `ROW` after the other."""
        num_rows, vocab_size = logits.shape
        assert len(rows) == num_rows * ROW.size
        token_ids = np.empty(num_rows, dtype=np.int64)
        self._draw(
            self._kernels.context, _place(logits), num_rows, vocab_size, rows, token_ids.ctypes.data
        )  # fmt: skip
        return token_ids

    def score(self, logits: Floats, rows: Integers | None, token_ids: Integers, num_top: int) -> Scores:
        """(log-probabilities [R], ranks [R], best ids [R, k], their log-probabilities [R, k]).

        `token_ids` [R] are asked about rows `rows` [R] of the logits; None means each its own.
        """
        num_rows, vocab_size = len(token_ids), logits.shape[1]
        num_top = min(num_top, vocab_size)
        logprobs, ranks = np.empty(num_rows, dtype=np.float32), np.empty(num_rows, dtype=np.int64)
        top_ids, top_logprobs = (
            np.empty((num_rows, num_top), dtype=np.int64),
            np.empty((num_rows, num_top), dtype=np.float32),
        )
        self._score(
            self._kernels.context,
            _place(logits),
            num_rows,
            vocab_size,
            None if rows is None else rows.ctypes.data,
            token_ids.ctypes.data,
            num_top,
            logprobs.ctypes.data,
            ranks.ctypes.data,
            top_ids.ctypes.data,
            top_logprobs.ctypes.data,
        )
        return logprobs, ranks, top_ids, top_logprobs


def _place(logits: Floats) -> int:
    assert logits.dtype == np.float32
    assert logits.flags.c_contiguous
    return logits.ctypes.data
