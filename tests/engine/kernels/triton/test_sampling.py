"""Draws on the device against the torch sampler, stage by stage."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution import philox
from engine.execution.sampler import TorchSampler
from engine.kernels.triton.sampling import TritonSampling
from engine.plan import Draw
from engine.request import SamplingParams
from tests.support.triton_device import INTERPRETED, skip_elsewhere

STAGES = {
    "plain": {},
    "cold": {"temperature": 0.3},
    "hot": {"temperature": 2.0},
    "top-k": {"top_k": 7},
    "top-k of one": {"top_k": 1},
    "top-k beyond a tile": {"top_k": 100},
    "top-k beyond everything": {"top_k": 10**12},
    "top-p": {"top_p": 0.9},
    "nearly no top-p": {"top_p": 0.999},
    "hardly any top-p": {"top_p": 1e-6},
    "min-p": {"min_p": 0.05},
    "min-p of one": {"min_p": 1.0},
    "top-p and min-p": {"top_p": 0.8, "min_p": 0.02},
    "top-k and top-p": {"top_k": 40, "top_p": 0.7},
    "top-k beyond a tile, and top-p": {"top_k": 150, "top_p": 0.9},
    "all": {"top_k": 30, "top_p": 0.95, "min_p": 0.001, "temperature": 1.5},
    "greedy": {"temperature": 0.0},
}
WHOLE = TritonSampling(most_tile=256, room=256)
"""Has each row of these tests in one tile."""

SMALL = TritonSampling(most_tile=64, room=48)
"""Takes several tiles, and has more candidates than room, where these are more than 48."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    uniforms: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor


def noise(num_rows, size, scale=3.0, seed=0):
    return scale * torch.randn(num_rows, size, generator=torch.Generator().manual_seed(seed))


def draws(num_rows, **sampling):
    return [
        Draw(sampling=SamplingParams(max_tokens=1, **{"seed": seed, **sampling}), choice=seed % 3)
        for seed in range(num_rows)
    ]


def columns_of(own, device):
    params = [draw.sampling for draw in own]
    uniforms = philox.uniforms([p.seed for p in params], [draw.choice for draw in own], list(range(len(own))))
    real = {"dtype": torch.float64, "device": device}
    return Columns(
        uniforms=torch.tensor(uniforms, **real),
        temperature=torch.tensor([0.0 if p.is_greedy else p.temperature for p in params], **real),
        top_k=torch.tensor([p.top_k for p in params], device=device),
        top_p=torch.tensor([p.top_p for p in params], **real),
        min_p=torch.tensor([p.min_p for p in params], **real),
    )


def both(place, logits, own, sampling=WHOLE):
    """(token ids by the kernel, by torch in float64)."""
    found = sampling.draw(logits.to(place.device), columns_of(own, place.device))
    expected, _ = TorchSampler().draw(logits.double(), own, list(range(len(own))))
    return found.tolist(), expected.tolist()


@pytest.mark.parametrize(
    "stage", ["plain", "top-k", "top-k beyond everything", "hardly any top-p", "min-p of one", "all"]
)
def test_equal_seeds_draw_the_references_tokens(place, stage):
    found, expected = both(place, noise(3, 200), draws(3, **STAGES[stage]))

    assert found == expected


@pytest.mark.parametrize("stage", ["plain", "top-k", "top-k beyond a tile, and top-p"])
def test_rows_of_several_tiles_draw_the_references_tokens(place, stage):
    found, expected = both(place, noise(2, 180), draws(2, **STAGES[stage]), SMALL)

    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [17, 400])
def test_many_seeds_draw_the_references_tokens(place, stage, size):
    found, expected = both(place, noise(30, size), draws(30, **STAGES[stage]), SMALL)

    assert found == expected


@pytest.mark.parametrize("size", [1, 64, 65])
def test_rows_that_end_anywhere_in_a_tile_are_drawn_from_in_full(place, size):
    found, expected = both(place, noise(4, size, scale=0.1), draws(4), SMALL)

    assert found == expected


def test_rows_of_one_step_may_ask_for_different_things(place):
    own = [draws(index + 1, **stage)[-1] for index, stage in enumerate(STAGES.values())]

    found, expected = both(place, noise(len(own), 200), own)

    assert found == expected


def test_the_sizes_for_serving_draw_the_same(place):
    found, expected = both(place, noise(3, 9000), draws(3, top_p=0.95, top_k=60), TritonSampling())

    assert found == expected


def test_flat_rows_with_more_candidates_than_room_draw_the_same(place):
    found, expected = both(place, noise(1, 150, scale=0.01), draws(1, top_p=0.97), SMALL)

    assert found == expected


@pytest.mark.parametrize("stage", ["top-k", "top-p", "min-p"])
def test_equals_of_the_last_one_that_stays_stay_too(place, stage):
    logits = noise(4, 100).round()

    found, expected = both(place, logits, draws(4, **STAGES[stage]))

    assert found == expected


def test_tokens_that_are_masked_are_never_drawn(place):
    logits = torch.full((6, 100), -torch.inf)
    logits[:, [3, 70, 99]] = torch.tensor([1.0, 1.5, 0.5])

    found, expected = both(place, logits, draws(6, top_p=0.99))

    assert found == expected
    assert set(found) <= {3, 70, 99}


@pytest.mark.parametrize("logit", [-torch.inf, torch.inf, torch.nan])
def test_a_row_without_a_distribution_is_greedy(place, logit):
    logits = torch.full((1, 70), logit)

    found = SMALL.draw(logits.to(place.device), columns_of(draws(1, top_p=0.5), place.device))

    assert 0 <= found.item() < 70


def test_greedy_rows_take_the_first_of_the_largest(place):
    logits = noise(6, 150).round().to(place.device)

    assert SMALL.draw(logits, None).tolist() == logits.argmax(-1).tolist()


def test_a_row_draws_the_same_token_in_any_company(place):
    own = draws(3, top_k=20, top_p=0.9)
    logits, columns = noise(3, 130).to(place.device), columns_of(own, place.device)

    together = WHOLE.draw(logits, columns).tolist()

    for row in range(3):
        part = slice(row, row + 1)
        alone = Columns(
            uniforms=columns.uniforms[part],
            temperature=columns.temperature[part],
            top_k=columns.top_k[part],
            top_p=columns.top_p[part],
            min_p=columns.min_p[part],
        )
        assert WHOLE.draw(logits[part], alone).tolist() == together[part]


def test_no_rows_draw_nothing(place):
    assert SMALL.draw(torch.zeros(0, 5, device=place.device), None).tolist() == []


def test_uniform_numbers_are_the_hosts(place):
    seeds = [0, 1, 2**31, 2**32 + 5, 2**63 - 1]
    choices, positions = [0, 3, 1, 0, 2], [0, 1, 77, 2**20, 9]

    found = SMALL.uniforms(
        *(torch.tensor(column, device=place.device) for column in (seeds, choices, positions))
    )

    assert found.tolist() == philox.uniforms(seeds, choices, positions)


@st.composite
def any_rows(draw):
    """(logits, draws) of two rows alike."""
    own = draws(
        2,
        top_k=draw(st.integers(0, 160)),
        top_p=draw(st.floats(0.01, 1.0)),
        min_p=draw(st.sampled_from([0.0, 0.01, 0.3])),
    )
    logits = noise(
        2, draw(st.integers(1, 150)), draw(st.sampled_from([0.05, 1.0, 6.0])), draw(st.integers(0, 2**32))
    )
    return logits, own


@settings(max_examples=4)
@given(rows=any_rows())
def test_any_parameters_draw_the_references_tokens(rows):
    skip_elsewhere(INTERPRETED)

    found, expected = both(INTERPRETED, *rows)

    assert found == expected


@pytest.mark.slow
@settings(max_examples=100)
@given(rows=any_rows())
def test_any_parameters_draw_the_references_tokens_from_rows_of_several_tiles(rows):
    skip_elsewhere(INTERPRETED)

    found, expected = both(INTERPRETED, *rows, SMALL)

    assert found == expected
