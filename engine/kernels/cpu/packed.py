"""`PackedWeights`: a projection's weights in the tiles that the native kernels read.

Weights are held as the checkpoint has them, once: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and BF16
exactly; F16 and F32 rounded to bfloat16; Q6_K as 8-bit codes in groups of 32, off by at most 1/510
of the range of a group's values.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import CheckpointError
from engine.kernels.cpu.library import MAX_SEGMENTS, LinearWeights, Segment
from engine.kernels.cpu.memory import Bytes, Floats, empty_bytes

GROUP = 32
CENTRED_F16, AFFINE_F16, AFFINE_F32, DENSE_BF16 = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFormat:
    """How a checkpoint's tensor type is packed; `source` is GGML's number of it."""

    source: int
    code_bits: int
    scales: int
    centre: int = 0

    @property
    def is_grouped(self) -> bool:
        """Whether rows must be a multiple of 32 long, as they are in files of such types."""
        return self.scales != DENSE_BF16


FORMATS = {
    "F32": PackedFormat(source=0, code_bits=16, scales=DENSE_BF16),
    "F16": PackedFormat(source=1, code_bits=16, scales=DENSE_BF16),
    "BF16": PackedFormat(source=30, code_bits=16, scales=DENSE_BF16),
    "Q4_0": PackedFormat(source=2, code_bits=4, scales=CENTRED_F16, centre=8),
    "Q4_1": PackedFormat(source=3, code_bits=4, scales=AFFINE_F16),
    "Q5_0": PackedFormat(source=6, code_bits=8, scales=CENTRED_F16, centre=16),
    "Q5_1": PackedFormat(source=7, code_bits=8, scales=AFFINE_F16),
    "Q8_0": PackedFormat(source=8, code_bits=8, scales=CENTRED_F16, centre=128),
    "Q4_K": PackedFormat(source=12, code_bits=4, scales=AFFINE_F32),
    "Q5_K": PackedFormat(source=13, code_bits=8, scales=AFFINE_F32),
    "Q6_K": PackedFormat(source=14, code_bits=8, scales=AFFINE_F32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRows:
    """A checkpoint's tensor as it is stored: rows of bytes [out, bytes], and their type.

    Row i of the tensor is `stored[row_order[i]]`; None means i itself. Valid while the file is open.
    """

    type_name: str
    stored: Bytes  # [out, row bytes]
    row_order: npt.NDArray[np.int32] | None  # [out]


class PackedWeights:
    """Up to three tensors with the same input, packed as segments of one projection."""

    def __init__(
        self, library: ctypes.CDLL, in_size: int, out_sizes: tuple[int, ...], bias: Floats | None
    ) -> None:
        assert len(out_sizes) <= MAX_SEGMENTS
        self._library = library
        self._bias = bias
        self._tiles: list[Bytes] = []  # with the bias all that `weights` points into
        self.in_size = in_size
        self.out_sizes = out_sizes
        self.weights = LinearWeights(
            bias=None if bias is None else bias.ctypes.data,
            in_size=in_size,
            out_size=sum(out_sizes),
            num_segments=len(out_sizes),
        )
        for index, size in enumerate(out_sizes):
            self.weights.segments[index].out_size = size

    def pack(self, first_row: int, rows: StoredRows) -> Bytes:
        """Pack the tensor whose rows begin at `first_row` of the projection; its tiles. From any thread.

        Raises CheckpointError for scales that are infinite or no numbers.
        """
        index = self._segment_from(first_row)
        packing = FORMATS[rows.type_name]
        assert len(rows.stored) == self.out_sizes[index]
        assert not packing.is_grouped or self.in_size % GROUP == 0
        segment: Segment = self.weights.segments[index]
        segment.code_bits, segment.scales, segment.centre = packing.code_bits, packing.scales, packing.centre
        num_bytes = self._library.rs_segment_bytes(ctypes.byref(segment), self.in_size)
        tiles = empty_bytes(num_bytes)
        self._tiles.append(tiles)
        segment.tiles = tiles.ctypes.data
        is_sound = self._library.rs_pack(
            ctypes.byref(segment),
            self.in_size,
            packing.source,
            rows.stored.ctypes.data,
            rows.stored.strides[0],
            None if rows.row_order is None else rows.row_order.ctypes.data,
        )
        if not is_sound:
            raise CheckpointError("a scale of its weights is infinite or no number: the file is damaged")
        return tiles

    @property
    def num_bytes(self) -> int:
        """Memory of the tiles."""
        return sum(tiles.nbytes for tiles in self._tiles)

    def unpacked(self) -> Floats:
        """[out, in]: what the tiles say, for comparisons."""
        values = np.empty((sum(self.out_sizes), self.in_size), dtype=np.float32)
        row = 0
        for index, size in enumerate(self.out_sizes):
            segment = ctypes.byref(self.weights.segments[index])
            for own_row in range(size):
                self._library.rs_unpack_row(segment, self.in_size, own_row, values[row].ctypes.data)
                row += 1
        return values

    def _segment_from(self, first_row: int) -> int:
        first_rows = [sum(self.out_sizes[:index]) for index in range(len(self.out_sizes))]
        return first_rows.index(first_row)
