"""`RoundedLinear` and its factory: projections whose weights are held and multiplied as 8-bit floating numbers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.kernels.ops import LinearOp
from engine.kernels.rounded import CODE, GRAIN, round_rows, scaled_linear
from engine.layers.linear import DenseLinears, Linear, Projection

RoundRows = Callable[[Tensor], tuple[Tensor, Tensor]]


class RoundedLinear(nn.Module):
    """Codes [out, in] and the worth of each row; activations are rounded as they come, a bias is not."""

    def __init__(self, codes: Tensor, bias: Tensor | None, round_hidden: RoundRows) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("worth", torch.zeros(len(codes), 1, device=codes.device))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.codes: Tensor
        self.worth: Tensor
        self._round_hidden = round_hidden

    @property
    def in_size(self) -> int:
        """Columns of the weight."""
        return self.codes.shape[1]

    def take(self, first_row: int, values: Tensor) -> None:
        """Round rows of the weight, [n, in] on any device, into those from `first_row` on. From any thread."""
        codes, worth = round_rows(values.to(self.codes.device))
        rows = slice(first_row, first_row + len(values))
        self.codes.view(torch.uint8)[rows] = codes.view(torch.uint8)  # torch copies bytes into any part
        self.worth[rows] = worth

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return scaled_linear(self._round_hidden(hidden), (self.codes, self.worth), self.bias, hidden.dtype)


class RoundedLinears:
    """The factory of rounded projections. Tables of embeddings stay as they are, a head tied to them too."""

    def __init__(
        self, linear: LinearOp, round_hidden: RoundRows, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._dense = DenseLinears(linear, device, dtype)
        self._round_hidden = round_hidden
        self._device = device
        self._dtype = dtype

    def __call__(self, name: str, in_size: int, out_sizes: tuple[int, ...], *, has_bias: bool) -> Projection:
        """A projection whose weights are still to be taken. CheckpointError for sizes that cannot be multiplied."""
        out_size = sum(out_sizes)
        if in_size % GRAIN or out_size % GRAIN:
            raise CheckpointError(
                f"{name} is {out_size} x {in_size}; --quantization fp8 needs multiples of {GRAIN}, leave it out"
            )
        codes = torch.empty(out_size, in_size, device=self._device, dtype=CODE)
        bias = torch.empty(out_size, device=self._device, dtype=self._dtype) if has_bias else None
        return RoundedLinear(codes, bias, self._round_hidden)

    def table(self, name: str, num_rows: int, size: int) -> Linear:
        """A dense table."""
        return self._dense.table(name, num_rows, size)
