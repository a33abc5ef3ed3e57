"""`StepColumns`: all that a step tells the device about its rows, in one copy through pinned memory.

A row is a sequence that decodes, or one that is drawn for. Behind the columns come the entries of block
tables that differ from what the device holds. The memory on the device stays where it is, so that a
recorded step reads what was sent last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.execution.link import Fence, Link
from engine.execution.philox import uniforms
from engine.execution.plain_draw import DrawColumns, DrawKind
from engine.execution.ring_tables import RingTables
from engine.plan import Chunk, Draw

NUM_COLUMNS = 8
LANE, POSITION, TOKEN, TOP_K = range(4)  # int64
UNIFORM, TEMPERATURE, TOP_P, MIN_P = range(4, 8)  # float64
NOT_KNOWN = -1  # in the place of a token that only the device knows
MAX_DIFFERENCES = 4096  # of one copy; more of them take further copies
NUM_TURNS = 3  # pinned buffers, one more than steps in flight

Words = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """The columns of R rows on the device."""

    lanes: Tensor  # [R] int64
    positions: Tensor  # [R] int64, of the token that is computed
    token_ids: Tensor  # [R] int64
    draws: DrawColumns


@dataclass(slots=True)
class _Turn:
    """A pinned buffer, and the copy that still reads it."""

    memory: Tensor
    words: Words
    fence: Fence | None = None


class StepColumns:
    """Room for `max_rows` rows. `send` and what reads the columns are queued one after the other."""

    def __init__(self, link: Link, max_rows: int, tables: RingTables, device: torch.device) -> None:
        self._link = link
        self._tables = tables
        num_words = NUM_COLUMNS * max_rows + 2 * MAX_DIFFERENCES
        memories = [link.staging(num_words) for _ in range(NUM_TURNS)]
        self._turns = [_Turn(memory, memory.numpy()) for memory in memories]
        self._next_turn = 0
        self._device = torch.zeros(num_words, dtype=torch.int64, device=device)

    def rows(self, num_rows: int) -> RowColumns:
        """The columns of a step of `num_rows` rows, where they always are."""
        whole = self._device[: NUM_COLUMNS * num_rows].view(NUM_COLUMNS, num_rows)
        real = whole.view(torch.float64)
        return RowColumns(
            lanes=whole[LANE],
            positions=whole[POSITION],
            token_ids=whole[TOKEN],
            draws=DrawColumns(
                uniforms=real[UNIFORM],
                temperature=real[TEMPERATURE],
                top_k=whole[TOP_K],
                top_p=real[TOP_P],
                min_p=real[MIN_P],
            ),
        )

    def send(
        self,
        lanes: Sequence[int],
        chunks: Sequence[Chunk],
        kind: DrawKind,
        num_rows: int,
        *,
        with_tables: bool,
    ) -> None:
        """Queue the copy of one row for each chunk, and rows for nobody up to `num_rows`.

        With tables, what differs from those on the device goes with it and is in them afterwards.
        """
        turn = self._take_turn()
        size = NUM_COLUMNS * num_rows
        self._fill(turn.words[:size].reshape(NUM_COLUMNS, num_rows), lanes, chunks, kind)
        found: list[tuple[int, int]] = []
        if with_tables:
            for lane, chunk in zip(lanes, chunks, strict=True):
                found += self._tables.differences(lane, chunk.tables)
        self._copy(turn, size, found[:MAX_DIFFERENCES])
        for first in range(MAX_DIFFERENCES, len(found), MAX_DIFFERENCES):
            # These overwrite no column: they go behind the columns again.
            self._copy_differences(self._take_turn(), size, found[first : first + MAX_DIFFERENCES])

    def forget(self) -> None:
        """What was sent last may not have arrived: send tables anew."""
        self._tables.forget()

    def clear(self, num_rows: int) -> None:
        """Let all rows be nobody's."""
        self.send((), (), DrawKind.TRUNCATED, num_rows, with_tables=False)

    def _take_turn(self) -> _Turn:
        turn = self._turns[self._next_turn]
        self._next_turn = (self._next_turn + 1) % NUM_TURNS
        if turn.fence is not None:
            turn.fence.wait()  # long past, unless the device is steps behind
        return turn

    def _copy(self, turn: _Turn, size: int, found: Sequence[tuple[int, int]]) -> None:
        num_words = size + 2 * len(found)
        _fill_differences(turn.words[size:num_words], found)
        turn.fence = self._link.upload(turn.memory[:num_words], self._device[:num_words])
        self._put(size, len(found))

    def _copy_differences(self, turn: _Turn, size: int, found: Sequence[tuple[int, int]]) -> None:
        num_words = 2 * len(found)
        _fill_differences(turn.words[:num_words], found)
        turn.fence = self._link.upload(turn.memory[:num_words], self._device[size : size + num_words])
        self._put(size, len(found))

    def _put(self, first: int, number: int) -> None:
        """Put the differences that were copied to `first` into the tables."""
        if number:
            places = self._device[first : first + number]
            self._tables.entries.index_copy_(0, places, self._device[first + number : first + 2 * number])

    def _fill(self, words: Words, lanes: Sequence[int], chunks: Sequence[Chunk], kind: DrawKind) -> None:
        number = len(chunks)
        real = words.view(np.float64)
        words[LANE, :number] = lanes
        words[LANE, number:] = self._tables.spare_lane
        words[POSITION, :number] = [chunk.stop - 1 for chunk in chunks]
        words[TOKEN, :number] = [
            NOT_KNOWN if chunk.takes_last_draw else chunk.token_ids[-1] for chunk in chunks
        ]
        words[POSITION : TOKEN + 1, number:] = 0
        if kind in (DrawKind.RANDOM, DrawKind.TRUNCATED):
            _fill_draws(words, real, [chunk.draw for chunk in chunks if chunk.draw is not None])
            real[UNIFORM, :number] = _uniforms(chunks)


def _fill_draws(words: Words, real: npt.NDArray[np.float64], draws: Sequence[Draw]) -> None:
    number = len(draws)
    params = [draw.sampling for draw in draws]
    words[TOP_K, :number] = [own.top_k for own in params]
    words[TOP_K, number:] = 0
    real[UNIFORM] = 0.0
    real[TEMPERATURE, :number] = [0.0 if own.is_greedy else own.temperature for own in params]
    real[TEMPERATURE, number:] = 0.0
    real[TOP_P, :number] = [own.top_p for own in params]
    real[TOP_P, number:] = 1.0
    real[MIN_P, :number] = [own.min_p for own in params]
    real[MIN_P, number:] = 0.0


def _uniforms(chunks: Sequence[Chunk]) -> list[float]:
    """The number of each chunk's draw, whose token will stand behind it."""
    draws = [chunk.draw for chunk in chunks if chunk.draw is not None]
    return uniforms(
        [draw.sampling.seed for draw in draws],
        [draw.choice for draw in draws],
        [chunk.stop for chunk in chunks],
    )


def _fill_differences(words: Words, found: Sequence[tuple[int, int]]) -> None:
    number = len(found)
    words[:number] = [place for place, _ in found]
    words[number:] = [block_id for _, block_id in found]
