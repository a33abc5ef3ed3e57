"""Native draws and scores at every level against the torch sampler, stage by stage."""

import math
from functools import cache

import pytest
import torch

from engine.execution.native_sampler import NativeSampler
from engine.execution.sampler import TorchSampler
from engine.kernels.cpu.sampling import NativeSampling
from engine.plan import Draw
from engine.request import SamplingParams
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.tensor_sampler import OnTensors

pytestmark = needs_native

SIZES = (1, 4, 15, 16, 17, 255, 257, 1000, 49_152)
STAGES = {
    "plain": {},
    "cold": {"temperature": 0.3},
    "hot": {"temperature": 2.0},
    "top-k": {"top_k": 7},
    "top-k beyond the block maxima": {"top_k": 500},
    "top-k beyond everything": {"top_k": 10**12},
    "top-p": {"top_p": 0.9},
    "nearly no top-p": {"top_p": 0.999},
    "hardly any top-p": {"top_p": 1e-6},
    "min-p": {"min_p": 0.05},
    "typical-p": {"typical_p": 0.7},
    "XTC": {"xtc_probability": 0.5, "xtc_threshold": 0.02},
    "all": {"top_k": 300, "top_p": 0.95, "min_p": 0.001, "typical_p": 0.9, "temperature": 1.5},
}


@pytest.fixture(scope="module", params=LEVELS)
def sampler(request):
    return OnTensors(NativeSampler(NativeSampling(native_kernels(request.param))))


def noise(num_rows, size, scale=3.0, seed=0):
    return scale * torch.randn(num_rows, size, generator=torch.Generator().manual_seed(seed))


@cache
def draws(num_rows, **sampling):
    return [
        Draw(sampling=SamplingParams(max_tokens=1, **{"seed": seed, **sampling}), choice=seed % 3)
        for seed in range(num_rows)
    ]


def share_of_equal(sampler, logits, **sampling):
    own, positions = draws(len(logits), **sampling), list(range(len(logits)))
    expected, _ = TorchSampler().draw(logits.double(), own, positions)
    found, _ = sampler.draw(logits, own, positions)
    return (found == expected).float().mean().item()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [17, 1000])
def test_equal_seeds_draw_the_references_tokens(sampler, stage, size):
    # One in hundreds of thousands may fall within rounding of a border.
    assert share_of_equal(sampler, noise(400, size), **STAGES[stage]) == 1.0


@pytest.mark.parametrize("stage", STAGES)
def test_a_large_vocabulary_draws_the_references_tokens(sampler, stage):
    assert share_of_equal(sampler, noise(12, 49_152), **STAGES[stage]) == 1.0


@pytest.mark.parametrize("stage", ["top-k", "top-p", "typical-p"])
def test_equals_of_the_last_one_kept_stay(sampler, stage):
    logits = noise(300, 64).round()

    assert share_of_equal(sampler, logits, **STAGES[stage]) == 1.0


@pytest.mark.parametrize("stage", STAGES)
def test_a_masked_token_is_never_drawn(sampler, stage):
    logits = torch.full((200, 100), -torch.inf)
    logits[:, 40:43] = noise(200, 3, 1.0)
    found, _ = sampler.draw(logits, draws(200, **STAGES[stage]), [0] * 200)

    assert set(found.tolist()) <= {40, 41, 42}


@pytest.mark.parametrize("size", SIZES)
def test_greedy_takes_the_first_of_the_largest(sampler, size):
    logits = noise(50, size).round()
    found, _ = sampler.draw(logits, draws(50, temperature=0.0), [0] * 50)

    assert found.tolist() == [row.tolist().index(max(row.tolist())) for row in logits]


@pytest.mark.parametrize("stage", ["plain", "top-k", "top-p", "min-p", "typical-p", "XTC"])
@pytest.mark.parametrize("size", [1, 16, 257])
@pytest.mark.parametrize("logit", [-math.inf, math.inf, math.nan], ids=str)
def test_a_row_without_a_distribution_draws_its_first_token(sampler, logit, size, stage):
    logits = torch.full((2, size), logit)
    own = [*draws(1, **STAGES[stage]), *draws(1, temperature=0.0)]

    token_ids, _ = sampler.draw(logits, own, [0, 0])

    assert token_ids.tolist() == [0, 0]


def test_draws_follow_the_distribution(sampler):
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]])).repeat(20_000, 1)
    found, _ = sampler.draw(logits, draws(20_000), [3] * 20_000)

    frequencies = torch.bincount(found, minlength=4) / 20_000
    assert torch.allclose(frequencies, torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.015)


def test_a_row_is_drawn_alike_alone_and_in_company(sampler):
    logits, own = noise(9, 3000), draws(9, top_p=0.9, typical_p=0.95)
    together, _ = sampler.draw(logits, own, [5] * 9)
    alone = [
        sampler.draw(logits[row : row + 1].clone(), own[row : row + 1], [5])[0].item() for row in range(9)
    ]

    assert together.tolist() == alone


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_top", [0, 1, 20])
def test_scores_equal_the_references(sampler, size, num_top):
    logits = noise(6, size)
    token_ids = torch.arange(6) * 7 % size
    found, expected = (own.score(logits, token_ids, num_top) for own in (sampler, TorchSampler()))

    assert torch.allclose(found.logprobs, expected.logprobs, atol=2e-6)
    assert found.ranks.tolist() == expected.ranks.tolist()
    assert found.top_ids.tolist() == expected.top_ids.tolist()
    assert torch.allclose(found.top_logprobs, expected.top_logprobs, atol=2e-6)


def test_the_greedy_token_has_the_very_float_of_the_first_alternative(sampler):
    logits = noise(8, 500).round()
    token_ids, scores = sampler.draw(
        logits, draws(8, temperature=0.0, logprobs=True, num_top_logprobs=3), [0] * 8
    )

    assert scores.top_ids[:, 0].tolist() == token_ids.tolist()
    assert scores.top_logprobs[:, 0].tolist() == scores.logprobs.tolist()


def test_of_equal_alternatives_the_first_come_first(sampler):
    scores = sampler.score(torch.zeros(1, 100), torch.tensor([50]), 5)

    assert scores.top_ids.tolist() == [[0, 1, 2, 3, 4]]
    assert scores.ranks.tolist() == [1]


def test_a_score_is_minus_infinity_for_a_token_that_cannot_be(sampler):
    logits = torch.tensor([[0.0, -torch.inf]])

    assert sampler.score(logits, torch.tensor([1]), 0).logprobs.tolist() == [-math.inf]
