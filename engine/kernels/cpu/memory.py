"""Arrays for the native kernels, and bytes for them that begin where a cache line does.

Vectors and tiles are a cache line wide; one that lies across two takes two reads.
"""

from math import prod

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

LINE_BYTES = 64


def empty_bytes(num_bytes: int) -> Bytes:
    """So many bytes of whatever was there before."""
    return _from_line(np.empty(num_bytes + LINE_BYTES, dtype=np.uint8), num_bytes)


def zero_bytes(num_bytes: int) -> Bytes:
    """So many zeros, of memory that is held from now on and not only once it is written to."""
    memory = empty_bytes(num_bytes)
    memory.fill(0)
    return memory


def empty_floats(*shape: int) -> Floats:
    """Numbers of whatever was there before."""
    return empty_bytes(4 * prod(shape)).view(np.float32).reshape(shape)


def _from_line(memory: Bytes, num_bytes: int) -> Bytes:
    start = -memory.ctypes.data % LINE_BYTES
    return memory[start : start + num_bytes]
