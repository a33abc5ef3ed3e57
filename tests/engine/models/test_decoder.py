import dataclasses

import pytest
import torch

from engine.models.blocks import LlamaBlock
from engine.models.decoder import Decoder
from tests.engine.layers.test_attention import SPEC
from tests.support.layer_kit import cpu_kit, fill
from tests.support.pack_by_hand import RingRun

TIED = dataclasses.replace(SPEC, num_layers=2, layer_windows=(None, 4), has_tied_head=True)


def decoder(spec=TIED, dtype: torch.dtype = torch.float32) -> Decoder:
    made = Decoder(spec, cpu_kit(dtype), LlamaBlock)
    fill(made)
    return made


def test_only_wanted_rows_come_out_in_the_order_asked_for():
    ids = list(range(8))
    every = RingRun(decoder(), block_size=4, max_chunk=8).step([(0, ids)])

    some = RingRun(decoder(), block_size=4, max_chunk=8).step([(0, ids)], wanted=[6, 2])

    torch.testing.assert_close(some, every[[6, 2]])


@pytest.mark.parametrize(
    ("dtype", "logits_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_logits_are_float32_unless_the_model_is_wider(dtype, logits_dtype):
    logits = decoder(dtype=dtype).logits(torch.ones(3, TIED.model_size, dtype=dtype))

    assert logits.shape == (3, TIED.vocab_size)
    assert logits.dtype == logits_dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_near_the_exact_result(dtype):
    ids = list(range(12))
    exact = RingRun(decoder(dtype=torch.float64), block_size=4, max_chunk=12).step([(0, ids)])

    rounded = RingRun(decoder(dtype=dtype), block_size=4, max_chunk=12).step([(0, ids)])

    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_tied_head_is_held_once():
    tied, untied = decoder(), decoder(dataclasses.replace(TIED, has_tied_head=False))

    assert untied.weight_bytes - tied.weight_bytes == TIED.vocab_size * TIED.model_size * 4
    assert tied.weight_bytes == sum(parameter.numel() * 4 for parameter in tied.parameters())


def test_no_parameter_is_trained():
    assert not any(parameter.requires_grad for parameter in decoder().parameters())


def test_each_layer_attends_with_its_own_window():
    """Layer 0 sees all, layer 1 four: two layers of four would not carry token 0 to row 7."""
    full = RingRun(decoder(), block_size=4, max_chunk=8)
    windowed = RingRun(decoder(TIED.with_window(4)), block_size=4, max_chunk=8)
    ids, changed = list(range(8)), [9, *range(1, 8)]

    moves = []
    for run in (full, windowed):
        other = RingRun(run.decoder, block_size=4, max_chunk=8)
        moves.append(float((run.step([(0, ids)])[7] - other.step([(0, changed)])[7]).abs().max()))

    assert moves[0] > 1e-3
    assert moves[1] == 0.0


def test_decodes_in_company_give_what_they_give_alone():
    ids = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10]]
    together = RingRun(decoder(dtype=torch.float64), block_size=4, max_chunk=6, num_sequences=3)
    for sequence, token_ids in enumerate(ids):
        together.step([(sequence, token_ids)])

    company = together.step([(0, [11]), (1, [11]), (2, [11])])

    for row, token_ids in enumerate(ids):
        alone = RingRun(decoder(dtype=torch.float64), block_size=4, max_chunk=7).step([(0, [*token_ids, 11])])
        torch.testing.assert_close(company[row], alone[-1], atol=1e-12, rtol=0)
