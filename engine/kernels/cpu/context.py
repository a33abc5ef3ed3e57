"""`KernelContext`: the shared library opened on one of its instruction sets, with a pool of threads.

Nothing here, nor in whatever computes whole steps with it, knows torch, whose import alone takes longer
than reading a small model's weights.
"""

import ctypes
import weakref
from ctypes import byref
from typing import Self

import numpy as np

from engine.errors import ConfigError
from engine.kernels.cpu.library import create_context, library_path, load_library, supported_levels
from engine.kernels.cpu.memory import Bytes, Floats
from engine.kernels.cpu.packed import PackedWeights


class KernelContext:
    """The library with a thread pool and one of its instruction sets, `level`."""

    def __init__(self, library: ctypes.CDLL, num_threads: int, level: str) -> None:
        self.library = library
        self.level = level
        self._address = create_context(library, num_threads, level)
        weakref.finalize(self, library.rs_destroy, self._address)

    @classmethod
    def open(cls, num_threads: int, level: str | None = None) -> Self | None:
        """Load the library, on the fastest instruction set unless named; None where it was not built.

        ConfigError for a level that this machine does not have.
        """
        path = library_path()
        if path is None:
            return None
        library = load_library(path)
        levels = supported_levels(library)
        if level is not None and level not in levels:
            raise ConfigError(f"the kernels have no level {level!r} here; there are {', '.join(levels)}")
        return cls(library, num_threads, level or levels[-1])

    @property
    def context(self) -> int:
        """Address of the library's `rs_context`."""
        return self._address

    @property
    def is_vectorised(self) -> bool:
        """Whether the level has vector instructions, without which torch is faster."""
        return self.level != "portable"

    def project(self, hidden: Floats, packed: PackedWeights) -> Floats:
        """Rows [T, in] give [T, out]; the rows lie together."""
        output = np.empty((len(hidden), sum(packed.out_sizes)), dtype=np.float32)
        self.library.rs_linear_forward(
            self._address, byref(packed.weights), hidden.ctypes.data, len(hidden), output.ctypes.data
        )
        return output

    def measure_limits(self, memory: Bytes) -> tuple[float, float]:
        """(bytes read of `memory`, operations on 8-bit codes) per second, of all threads together."""
        rates = (ctypes.c_double * 2)()
        self.library.rs_measure_limits(self._address, memory.ctypes.data, memory.nbytes, rates)
        return rates[0], rates[1]
