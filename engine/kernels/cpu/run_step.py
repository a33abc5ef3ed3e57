"""`NativeSteps`: whole steps of one model by the shared library, from the words of a plan on.

What the words are is told in `kernels.h`: S, R, the wanted rows, then the chunks. One thread may call
at a time; calls release the interpreter's lock.
"""

from array import array
from ctypes import byref

import numpy as np

from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.library import Stage
from engine.kernels.cpu.memory import Floats


class NativeSteps:
    """Computes steps on a `stage`, whose memory its maker keeps alive."""

    def __init__(self, kernels: KernelContext, stage: Stage, model_size: int) -> None:
        self._context = kernels.context
        self._library = kernels.library
        self._stage = byref(stage)
        self._model_size = model_size

    def hidden(self, words: "array[int]", num_wanted: int) -> Floats:
        """Embedding, all layers, final norm: hidden states of the wanted rows, [R, E]."""
        hidden = np.empty((num_wanted, self._model_size), dtype=np.float32)
        self._library.rs_run_step(self._context, self._stage, words.buffer_info()[0], hidden.ctypes.data)
        return hidden

    def draw(self, words: "array[int]", num_wanted: int, draws: bytes) -> list[int]:
        """The same, then the head, and a token drawn from each wanted row; `draws` is as in `sampling.py`."""
        token_ids = array("q", bytes(8 * num_wanted))
        places = words.buffer_info()[0], draws, token_ids.buffer_info()[0]
        self._library.rs_run_step_and_draw(self._context, self._stage, *places)
        return token_ids.tolist()
