"""`FusedDecoder`: a decoder on native kernels, with head and sampling, computed in one call per step.

The same operations in the same order as `Decoder.forward`, whose results on the same kernels it gives
to the last bit; only the interpreter between them is gone, which takes longer than the arithmetic of a
single row.
"""

import ctypes
from array import array
from ctypes import pointer
from typing import Protocol

from engine.kernels.cpu.angles import angle_tables
from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.library import CachePlaces, Stage
from engine.kernels.cpu.memory import Floats
from engine.kernels.cpu.run_step import NativeSteps
from engine.models.native_weights import NativeWeights

LEAST_ANGLES = 4096


class PlacedCaches(Protocol):
    """The caches of all layers, and how many cache groups these are in."""

    places: "ctypes.Array[CachePlaces]"
    num_groups: int


class FusedDecoder:
    """Weights and caches as one native call.

    A step comes as the words that `kernels.h` describes, which are integers: nothing of it becomes an
    array before its answers are one. `stop` bounds the positions in it.
    """

    def __init__(
        self, weights: NativeWeights, kernels: KernelContext, caches: PlacedCaches, block_size: int
    ) -> None:
        self._kernels = kernels
        self._spec = weights.spec
        self._head = weights.head
        self._stage = Stage(
            model=pointer(weights.to_structure()),
            head=pointer(self._head.weights),
            caches=caches.places,
            num_groups=caches.num_groups,
            block_size=block_size,
        )
        self._steps = NativeSteps(kernels, self._stage, weights.spec.model_size)
        self._owners = (weights, caches)  # of the memory that `_stage` points to
        self._num_angles = 0
        self._reach(LEAST_ANGLES)

    def hidden(self, words: "array[int]", num_wanted: int, stop: int) -> Floats:
        """The wanted rows' final hidden states, normed, [R, E]."""
        if stop > self._num_angles:
            self._reach(stop)
        return self._steps.hidden(words, num_wanted)

    def draw(self, words: "array[int]", num_wanted: int, stop: int, draws: bytes) -> list[int]:
        """A token for each wanted row; `draws` has a row of `kernels/cpu/sampling.py` for each."""
        if stop > self._num_angles:
            self._reach(stop)
        return self._steps.draw(words, num_wanted, draws)

    def logits(self, hidden: Floats) -> Floats:
        """[R, E] gives [R, V]."""
        return self._kernels.project(hidden, self._head)

    def _reach(self, num_positions: int) -> None:
        """Work out cosines and sines of so many positions from 0 on, at the least; steps look them up."""
        self._num_angles = 1 << (num_positions - 1).bit_length()
        self._angles = angle_tables(self._spec.rope, self._spec.head_size, self._num_angles)
        self._stage.cos, self._stage.sin = (table.ctypes.data for table in self._angles)
