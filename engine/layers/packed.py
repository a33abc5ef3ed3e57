"""`PackedLinear` and its factory: projections whose weights stay in the checkpoint's own precision.

They hold what `kernels/cpu/packed.py` packs, and compute on a CPU with the native kernels only.
"""

import torch
from torch import Tensor, nn

from engine.kernels.cpu.angles import angle_tables
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.cpu.packed import PackedWeights, StoredRows
from engine.model_spec import RopeSpec


class PackedLinear(nn.Module):
    """A projection, or a table of token embeddings, on packed weights; a bias is float32.

    Each tensor of the checkpoint that is a part of it is given to `pack` once.
    """

    def __init__(
        self, kernels: NativeKernels, in_size: int, out_sizes: tuple[int, ...], *, has_bias: bool
    ) -> None:
        super().__init__()
        bias = torch.empty(sum(out_sizes)) if has_bias else None
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.packed = PackedWeights(
            kernels.library, in_size, out_sizes, None if bias is None else bias.numpy()
        )
        self._kernels = kernels

    @property
    def in_size(self) -> int:
        """Columns of the weight."""
        return self.packed.in_size

    def pack(self, first_row: int, rows: StoredRows) -> None:
        """Take in the tensor whose rows begin at `first_row`. From any thread."""
        tiles = torch.from_numpy(self.packed.pack(first_row, rows))
        self.register_buffer(f"tiles_{first_row}", tiles, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernels.linear(hidden, self.packed)

    def look_up(self, token_ids: Tensor) -> Tensor:
        """Rows of the weight, [T] to [T, in]."""
        return self._kernels.look_up(token_ids, self.packed)


class LookedUpRotary:
    """The angles that the native kernels look up, as tensors; `Angles` for a CPU."""

    def __init__(self, rope: RopeSpec, head_size: int, device: torch.device, dtype: torch.dtype) -> None:
        assert device.type == "cpu"
        self._sizes = rope, head_size
        self._dtype = dtype

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [T] give (cos, sin), each [T, D / 2]."""
        tables = angle_tables(*self._sizes, 1 + int(positions.max()))
        cos, sin = (torch.from_numpy(table)[positions].to(self._dtype) for table in tables)
        return cos, sin


class PackedLinears:
    """The factory of packed projections; a `LinearFactory`."""

    def __init__(self, kernels: NativeKernels) -> None:
        self._kernels = kernels

    def __call__(
        self,
        name: str,  # noqa: ARG002  part of the protocol, of no consequence here
        in_size: int,
        out_sizes: tuple[int, ...],
        *,
        has_bias: bool,
    ) -> PackedLinear:
        """A projection whose parts are still to be packed."""
        return PackedLinear(self._kernels, in_size, out_sizes, has_bias=has_bias)

    def table(self, name: str, num_rows: int, size: int) -> PackedLinear:
        """A table of `num_rows` embeddings, still to be packed."""
        return self(name, size, (num_rows,), has_bias=False)
