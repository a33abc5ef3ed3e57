"""`Linear`, and `LinearFactory`: the one way to make a projection.

Every projection of every family is made by the factory a model is built with. Another factory may
return projections that hold their weights in another form, or that add to their results; the
layers that call them cannot tell.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.kernels.ops import LinearOp


class Projection(Protocol):
    """A learned linear map of the last dimension."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """[T, in] gives [T, out]."""
        ...


class TokenTable(Projection, Protocol):
    """Embeddings of tokens; as a projection it is the head that is tied to them."""

    def look_up(self, token_ids: Tensor) -> Tensor:
        """[T] int64 gives [T, E]."""
        ...


class LinearFactory(Protocol):
    """Makes the projections of a model."""

    def __call__(self, name: str, in_size: int, out_sizes: tuple[int, ...], *, has_bias: bool) -> Projection:
        """A projection whose weights are still to be loaded.

        `name` is its module's path in the decoder. Several `out_sizes` are projections of the same
        input computed as one: their rows follow one another in the order given.
        """
        ...

    def table(self, name: str, num_rows: int, size: int) -> TokenTable:
        """A table of embeddings [num_rows, size] that is still to be loaded."""
        ...


class Linear(nn.Module):
    """A dense projection: weight [out, in], bias [out] or none."""

    def __init__(self, weight: Tensor, bias: Tensor | None, linear: LinearOp) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._linear = linear

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._linear(hidden, self.weight, self.bias)

    def look_up(self, token_ids: Tensor) -> Tensor:
        """Rows of the weight, [T] to [T, in]."""
        return functional.embedding(token_ids, self.weight)


class DenseLinears:
    """The plain factory: `Linear` with uninitialised weights of one dtype on one device."""

    def __init__(self, linear: LinearOp, device: torch.device, dtype: torch.dtype) -> None:
        self._linear = linear
        self._device = device
        self._dtype = dtype

    def __call__(
        self,
        name: str,  # noqa: ARG002  part of the protocol, of no consequence here
        in_size: int,
        out_sizes: tuple[int, ...],
        *,
        has_bias: bool,
    ) -> Linear:
        """Weight [sum(out_sizes), in_size]."""
        out_size = sum(out_sizes)
        weight = torch.empty(out_size, in_size, device=self._device, dtype=self._dtype)
        bias = torch.empty(out_size, device=self._device, dtype=self._dtype) if has_bias else None
        return Linear(weight, bias, self._linear)

    def table(self, name: str, num_rows: int, size: int) -> Linear:
        """Weight [num_rows, size]."""
        return self(name, size, (num_rows,), has_bias=False)
