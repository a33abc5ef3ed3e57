import numpy as np
import pytest
import torch

from engine.execution.native_sampler import NativeSampler
from engine.execution.sampler import TorchSampler
from engine.kernels.cpu.sampling import NativeSampling
from engine.plan import Draw
from engine.request import SamplingParams
from tests.engine.execution.test_sampler import EXTREMES, SINGLE
from tests.support.native import LEVELS, native_kernels, needs_native

pytestmark = needs_native


@pytest.fixture(scope="module")
def sampler():
    return NativeSampler(NativeSampling(native_kernels(LEVELS[-1])))


def draw(history=(), num_prompt=0, banned_ids=(), **sampling):
    return Draw(
        sampling=SamplingParams(**{"max_tokens": 1, "seed": 4, **sampling}),
        choice=0,
        history=history,
        num_prompt=num_prompt,
        banned_ids=banned_ids,
    )


MIXED = [
    draw(temperature=0.0),
    draw(temperature=0.0, logprobs=True, num_top_logprobs=2),
    draw(logit_bias=((3, 5.0),), logprobs=True),
    draw(history=(1, 2, 2), num_prompt=1, presence_penalty=1.0, frequency_penalty=1.0),
    draw(banned_ids=(0, 1), temperature=0.0),
    draw(allowed_ids=(5, 6, 7), top_p=0.9),
    draw(history=(9, 8), repetition_penalty=1.5, temperature=0.0),
    draw(top_k=3, min_p=0.1, logprobs=True, num_top_logprobs=4),
]


def test_rows_that_ask_for_different_things_get_what_the_reference_gives(sampler):
    logits = 3 * torch.randn(len(MIXED), 400, generator=torch.Generator().manual_seed(1))
    positions = list(range(len(MIXED)))
    token_ids, scores = sampler.draw(logits.numpy(), MIXED, positions)
    expected_ids, expected = TorchSampler().draw(logits, MIXED, positions)

    assert token_ids.tolist() == expected_ids.tolist()
    assert np.allclose(scores.logprobs, expected.logprobs, atol=2e-6)
    assert scores.ranks.tolist() == expected.ranks.tolist()
    assert scores.top_ids.tolist() == expected.top_ids.tolist()


def test_edits_leave_the_raw_logits_alone(sampler):
    logits = np.zeros((1, 40), dtype=np.float32)
    sampler.draw(logits, [draw(logit_bias=((3, 5.0),))], [0])

    assert logits.tolist() == [[0.0] * 40]


def test_nothing_is_scored_unless_asked_for(sampler):
    assert sampler.draw(np.zeros((1, 40), dtype=np.float32), [draw()], [0])[1] is None


@pytest.mark.parametrize("own", EXTREMES.values(), ids=EXTREMES)
def test_extreme_parameters_draw_what_the_reference_draws(sampler, own):
    draws = [draw(**{"seed": seed, **own}) for seed in range(20)]
    logits = SINGLE[:1].repeat(20, 1)

    drawn, _ = sampler.draw(logits.numpy(), draws, [0] * 20)
    expected, _ = TorchSampler().draw(logits, draws, [0] * 20)

    assert drawn.tolist() == expected.tolist()
