"""`TritonSampling`: tokens drawn from logits on the device, a program a row, with nothing asked of the host.

Equal columns draw equal tokens as the sampler in plain torch does, but where a uniform number falls within
rounding of the border between two tokens. A recorded step may hold it.
"""

from typing import Protocol

import torch
import triton
from torch import Tensor

from engine.kernels.triton.block_sizes import power_of_two
from engine.kernels.triton.sampling_rows import draw_rows, fill_uniforms

MOST_TILE = 8192  # logits that a program looks at together: what one multiprocessor has in flight
ROOM = 4096  # candidates of a row that are put aside; where there are more, its whole row is searched


class DrawParameters(Protocol):
    """The parameters of R rows, each a tensor [R]; what a row leaves out is neutral."""

    @property
    def uniforms(self) -> Tensor:
        """Numbers of 0 .. 1, float64."""
        ...

    @property
    def temperature(self) -> Tensor:
        """Above 0, or 0 for a greedy row."""
        ...

    @property
    def top_k(self) -> Tensor:
        """Integers; 0 for all tokens."""
        ...

    @property
    def top_p(self) -> Tensor:
        """1 for all tokens."""
        ...

    @property
    def min_p(self) -> Tensor:
        """0 for all tokens."""
        ...


class TritonSampling:
    """Draws for rows of logits; `most_tile` and `room` are smaller in tests."""

    def __init__(self, *, most_tile: int = MOST_TILE, room: int = ROOM) -> None:
        self._most_tile = most_tile
        self._room = room

    def draw(self, logits: Tensor, parameters: DrawParameters | None) -> Tensor:
        """Token ids [R] int64 of logits [R, V] float32; without parameters all rows are greedy."""
        assert logits.dtype == torch.float32
        num_rows, size = logits.shape
        token_ids = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
        if num_rows == 0:
            return token_ids
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        tile = min(self._most_tile, power_of_two(size))
        room = min(self._room, size)
        columns: tuple[Tensor, ...] = (token_ids,) * 5  # not looked at
        aside = logits
        if parameters is not None:
            columns = (
                parameters.uniforms,
                parameters.temperature,
                parameters.top_k,
                parameters.top_p,
                parameters.min_p,
            )
            aside = logits.new_empty(num_rows, room)
        draw_rows[(num_rows,)](
            logits, *columns, token_ids, aside, logits.stride(0), size, room,
            tile=tile, is_greedy=parameters is None, num_warps=16 if tile > 4096 else 8 if tile > 1024 else 4,
        )  # fmt: skip
        return token_ids

    def uniforms(self, seeds: Tensor, choices: Tensor, positions: Tensor) -> Tensor:
        """The numbers [R] of 0 .. 1 for draws with these seeds and choices, whose tokens will stand at `positions`.

        All int64 (a seed's 64 bits are taken as they are); float64, those of `engine/execution/philox.py`.
        """
        numbers = torch.empty(len(seeds), dtype=torch.float64, device=seeds.device)
        if len(seeds):
            width = min(128, power_of_two(len(seeds)))
            fill_uniforms[(triton.cdiv(len(seeds), width),)](
                seeds, choices, positions, numbers, len(seeds), width=width, num_warps=4
            )
        return numbers
