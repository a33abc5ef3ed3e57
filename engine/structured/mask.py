"""`MaskTable`: which tokens the next draw of each constrained sequence may take, as packed bits.

The bits are found by the library on threads of its own, while the model computes. It knows neither
logits nor plans.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from engine.structured.automaton import Automaton

Bits = npt.NDArray[np.int32]
WORD_BITS = 32


class MaskTable:
    """The automata of all constrained sequences that there are, by sequence id.

    The sequences own them: what is gone there is gone here. Belongs to the loop's thread.
    """

    def __init__(self) -> None:
        self._automata: WeakValueDictionary[int, Automaton] = WeakValueDictionary()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def add(self, sequence_id: int, automaton: Automaton) -> None:
        """Let a sequence be masked from now on."""
        self._automata[sequence_id] = automaton

    def fill(self, sequence_ids: Sequence[int]) -> "Future[Bits]":
        """Begin to find the masks `[rows, V / 32]` of these sequences: token t is bit t % 32 of word t // 32.

        None of them may advance before the answer is there.
        """
        automata = [self._automata[sequence_id] for sequence_id in sequence_ids]
        return self._thread.submit(_fill, automata)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _fill(automata: Sequence[Automaton]) -> Bits:
    library = automata[0].library
    num_words = -(-library.tokenizer.vocab_size // WORD_BITS)
    bits = np.empty((len(automata), num_words), dtype=np.int32)  # [rows, V / 32]
    rows = [(automaton.matcher, row) for row, automaton in enumerate(automata)]
    library.executor.unsafe_compute_mask_ptr(rows, bits.ctypes.data, bits.strides[0], len(automata))
    return bits
