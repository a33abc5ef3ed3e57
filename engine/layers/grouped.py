"""`GroupedLinear` and its factory: projections whose weights are held as 8-bit or 4-bit codes in groups of 32.

For devices without native kernels: the codes are turned into numbers in every product, which saves memory and
costs speed. Codes come as the blocks of GGUF files, of type Q8_0 or Q4_1.
"""

import torch
from torch import Tensor, nn

from engine.kernels.cpu.packed import StoredRows
from engine.kernels.ops import LinearOp

GROUP = 32
TYPES = {"int8": "Q8_0", "int4": "Q4_1"}
Kind = tuple[str, torch.device, torch.dtype]
"""Type of the blocks, where they are, and what is computed in."""

HEAD = "lm_head"  # 8-bit in either format, as a table of embeddings is


class GroupedLinear(nn.Module):
    """A projection, or a table of token embeddings: d · c, or of 4-bit codes d · c + m, for each group."""

    def __init__(self, shape: tuple[int, int], bias: Tensor | None, linear: LinearOp, kind: Kind) -> None:
        super().__init__()
        out_size, in_size = shape
        self.type_name, device, self._dtype = kind
        num_groups = in_size // GROUP
        code_bytes = GROUP if self.type_name == "Q8_0" else GROUP // 2
        num_numbers = 1 if self.type_name == "Q8_0" else 2
        codes = torch.empty(out_size, num_groups, code_bytes, dtype=torch.uint8, device=device)
        self.register_buffer("codes", codes)
        numbers = torch.empty(out_size, num_groups, num_numbers, dtype=torch.float16, device=device)
        self.register_buffer("numbers", numbers)  # d, or d and m
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.codes: Tensor
        self.numbers: Tensor
        self._linear = linear

    @property
    def in_size(self) -> int:
        """Columns of the weight."""
        return self.codes.shape[1] * GROUP

    def pack(self, first_row: int, rows: StoredRows) -> None:
        """Take in the tensor whose rows begin at `first_row`. From any thread."""
        assert rows.type_name == self.type_name
        assert rows.row_order is None
        num_rows, num_groups = len(rows.stored), self.codes.shape[1]
        blocks = torch.from_numpy(rows.stored).view(num_rows, num_groups, -1).to(self.codes.device)
        header = 2 * self.numbers.shape[-1]
        own = slice(first_row, first_row + num_rows)
        self.numbers[own] = blocks[..., :header].contiguous().view(torch.float16)
        self.codes[own] = blocks[..., header:]

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._linear(hidden, self._values(self.codes, self.numbers), self.bias)

    def look_up(self, token_ids: Tensor) -> Tensor:
        """Rows of the weight, [T] to [T, in]."""
        return self._values(self.codes.index_select(0, token_ids), self.numbers.index_select(0, token_ids))

    def _values(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """[rows, in] of the dtype that is computed in; worked out in float16, which holds every code and scale."""
        if self.type_name == "Q8_0":
            values = codes.view(torch.int8).half() * numbers
        else:
            wide = torch.cat((codes & 15, codes >> 4), dim=-1).half()  # [rows, groups, 32]
            values = torch.addcmul(numbers[..., 1:], wide, numbers[..., :1])
        return values.flatten(1).to(self._dtype)


class GroupedLinears:
    """The factory of projections in one format, `int8` or `int4`."""

    def __init__(self, linear: LinearOp, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self._linear = linear
        self._type_name = TYPES[name]
        self._device = device
        self._dtype = dtype

    def __call__(
        self, name: str, in_size: int, out_sizes: tuple[int, ...], *, has_bias: bool
    ) -> GroupedLinear:
        """A projection whose codes are still to be packed."""
        type_name = "Q8_0" if name == HEAD else self._type_name
        out_size = sum(out_sizes)
        bias = torch.empty(out_size, device=self._device, dtype=self._dtype) if has_bias else None
        kind = (type_name, self._device, self._dtype)
        return GroupedLinear((out_size, in_size), bias, self._linear, kind)

    def table(self, name: str, num_rows: int, size: int) -> GroupedLinear:  # noqa: ARG002  as in the protocol
        """A table of embeddings, 8-bit in either format."""
        return GroupedLinear((num_rows, size), None, self._linear, ("Q8_0", self._device, self._dtype))
