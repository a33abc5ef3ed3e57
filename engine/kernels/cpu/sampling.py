"""`NativeSampling`: tokens drawn from rows of logits, and scored, by the shared library.

The stages and the draw are those of `engine/execution/sampler.py`, the reference, in float32 and with
sums in float64. Equal seeds draw equal tokens but where a uniform number falls within rounding of the
border between two tokens. A row is computed by one thread, so its company changes nothing.
"""

import ctypes
import struct
from ctypes import c_int32, c_void_p

import torch
from torch import Tensor

from engine.kernels.cpu.native import NativeKernels

# Seed, position, choice, top_k; temperature, top_p, min_p, typical_p, XTC's probability and threshold.
ROW = struct.Struct("<Qqii6f")  # `rs_draw`
MAX_TOP_K = 2**31 - 1

Scores = tuple[Tensor, Tensor, Tensor, Tensor]


class NativeSampling:
    """Draws and scores with the threads of `kernels`, which may compute nothing else meanwhile."""

    def __init__(self, kernels: NativeKernels) -> None:
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

    def draw(self, logits: Tensor, rows: bytes) -> Tensor:
        """Token ids [R] int64 of logits [R, V] float32; `rows` is one `ROW` after the other."""
        num_rows, vocab_size = logits.shape
        assert len(rows) == num_rows * ROW.size
        token_ids = torch.empty(num_rows, dtype=torch.int64)
        self._draw(
            self._kernels.context, _place(logits), num_rows, vocab_size, rows, token_ids.data_ptr()
        )  # fmt: skip
        return token_ids

    def score(self, logits: Tensor, rows: Tensor | None, token_ids: Tensor, num_top: int) -> Scores:
        """(log-probabilities [R], ranks [R], best ids [R, k], their log-probabilities [R, k]).

        `token_ids` [R] int64 are asked about rows `rows` [R] int64 of the logits; None means each its own.
        """
        num_rows, vocab_size = len(token_ids), logits.shape[1]
        num_top = min(num_top, vocab_size)
        logprobs, ranks = torch.empty(num_rows), torch.empty(num_rows, dtype=torch.int64)
        top_ids, top_logprobs = (
            torch.empty(num_rows, num_top, dtype=torch.int64),
            torch.empty(num_rows, num_top),
        )
        self._score(
            self._kernels.context,
            _place(logits),
            num_rows,
            vocab_size,
            None if rows is None else rows.data_ptr(),
            token_ids.data_ptr(),
            num_top,
            logprobs.data_ptr(),
            ranks.data_ptr(),
            top_ids.data_ptr(),
            top_logprobs.data_ptr(),
        )
        return logprobs, ranks, top_ids, top_logprobs


def _place(logits: Tensor) -> int:
    assert logits.dtype == torch.float32
    assert logits.is_contiguous()
    return logits.data_ptr()
