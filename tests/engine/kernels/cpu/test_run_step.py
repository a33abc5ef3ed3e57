"""Whole steps of a tiny model: what is drawn in one call is what is drawn from the logits of the other."""

import pytest

from engine.kernels.cpu.sampling import ROW, NativeSampling
from tests.support.fused_run import fuse, fused, words_of
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.native_models import load_native, native_run
from tests.support.tiny_model import write_tiny_checkpoint

pytestmark = needs_native

SIZES = {"block_size": 4, "max_chunk": 20, "num_sequences": 70}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return write_tiny_checkpoint(folder, "mistral", window=8, with_tokenizer=False)


class DrawByHand:
    """Draws where a `RingRun` asks for hidden states."""

    def __init__(self, fused, rows):
        self.fused, self.rows = fused, rows

    def __call__(self, batch, caches):
        stop = 1 + int(batch.positions.max())
        self.token_ids = self.fused.draw(words_of(batch), len(batch.wanted_rows), stop, self.rows)

    def logits(self, hidden):
        return hidden


@pytest.mark.parametrize("level", LEVELS)
def test_tokens_are_drawn_as_from_the_logits(path, level):
    decoder, kernels = load_native(path, level), native_kernels(level)
    run, other = (native_run(decoder, **SIZES) for _ in range(2))
    chunks = [(sequence, [sequence % 200, 3]) for sequence in range(70)]
    wanted = list(range(1, 140, 2))
    logits = fuse(run, level).step(chunks, wanted)
    rows = b"".join(ROW.pack(5, row, 0, 0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.1) for row in range(70))

    drawing = DrawByHand(fused(decoder, kernels, other.caches, other.block_size), rows)
    other.decoder = drawing
    other.step(chunks, wanted)

    assert drawing.token_ids == NativeSampling(kernels).draw(logits.numpy(), rows).tolist()
    assert len(set(drawing.token_ids)) > 20
