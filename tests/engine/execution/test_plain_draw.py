import pytest
import torch

from engine.execution.philox import uniforms
from engine.execution.plain_draw import DrawColumns, DrawKind, draw_plainly, kind_of
from engine.execution.sampler import TorchSampler
from engine.plan import Draw
from engine.request import SamplingParams

VOCAB_SIZE = 1500  # beyond the head that the other sampler looks at before it sorts


def draw_of(seed=0, choice=0, **sampling):
    params = SamplingParams(max_tokens=1, seed=seed, **{"temperature": 0.0, **sampling})
    return Draw(sampling=params, choice=choice)


def columns_of(draws, positions):
    own = [draw.sampling for draw in draws]
    numbers = uniforms([one.seed for one in own], [draw.choice for draw in draws], positions)

    def real(values):
        return torch.tensor(values, dtype=torch.float64)

    return DrawColumns(
        uniforms=real(numbers),
        temperature=real([0.0 if one.is_greedy else one.temperature for one in own]),
        top_k=torch.tensor([one.top_k for one in own]),
        top_p=real([one.top_p for one in own]),
        min_p=real([one.min_p for one in own]),
    )


HABITS = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.9},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 2.0, "top_k": 40},
    {"temperature": 1.7, "top_k": 5000},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.999},
    {"temperature": 2.0, "top_k": 30, "top_p": 0.5, "min_p": 0.02},
    {"temperature": 2.0, "min_p": 0.2},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spread", [0.5, 4.0], ids=["flat", "sharp"])
def test_it_draws_what_the_sampler_that_does_all_draws(dtype, spread):
    generator = torch.Generator().manual_seed(1)
    draws = [draw_of(seed, seed % 3, **habit) for seed, habit in enumerate(HABITS * 20)]
    positions = [7 * index % 90 for index in range(len(draws))]
    logits = (spread * torch.randn(len(draws), VOCAB_SIZE, generator=generator)).to(dtype)
    logits[3::11] = logits[3::11].round()  # ties, among them at the borders
    expected, _ = TorchSampler().draw(logits, draws, positions)
    before = logits.clone()

    found = draw_plainly(DrawKind.TRUNCATED, logits, columns_of(draws, positions))
    assert torch.equal(found, expected)
    assert torch.equal(logits, before)


def test_a_kind_draws_what_a_richer_one_draws():
    logits = torch.randn(40, VOCAB_SIZE, generator=torch.Generator().manual_seed(2))
    draws = [draw_of(seed, temperature=float(seed % 2)) for seed in range(40)]
    columns = columns_of(draws, list(range(40)))

    richer = draw_plainly(DrawKind.TRUNCATED, logits, columns)
    assert torch.equal(draw_plainly(DrawKind.RANDOM, logits, columns), richer)
    assert torch.equal(draw_plainly(DrawKind.GREEDY, logits, columns)[::2], richer[::2])


def test_a_row_without_a_distribution_is_as_a_greedy_one():
    logits = torch.full((2, 8), -torch.inf)
    logits[1] = torch.nan
    columns = columns_of([draw_of(1, temperature=1.0), draw_of(2, temperature=1.0)], [0, 1])

    found = draw_plainly(DrawKind.TRUNCATED, logits, columns)
    assert torch.equal(found, logits.argmax(-1))


@pytest.mark.parametrize(
    ("habits", "kind"),
    [
        ([{}], DrawKind.GREEDY),
        ([{}, {"temperature": 1.0}], DrawKind.RANDOM),
        ([{"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}], DrawKind.TRUNCATED),
        ([{"top_p": 0.5}], DrawKind.GREEDY),
        ([{"temperature": 1.0, "typical_p": 0.5}], DrawKind.RARE),
        ([{"temperature": 1.0, "xtc_probability": 0.5}, {}], DrawKind.RARE),
        ([{"logprobs": True}], DrawKind.RARE),
        ([{"logit_bias": ((3, 1.0),)}], DrawKind.RARE),
        ([{"presence_penalty": 1.0}], DrawKind.RARE),
    ],
    ids=str,
)
def test_the_kind_is_the_least_that_does_all_rows(habits, kind):
    assert kind_of([draw_of(**habit) for habit in habits]) is kind


def test_masked_and_banned_draws_are_rare():
    sampling = SamplingParams(max_tokens=1, seed=0, temperature=0.0)

    assert kind_of([Draw(sampling=sampling, choice=0, is_masked=True)]) is DrawKind.RARE
    assert kind_of([Draw(sampling=sampling, choice=0, banned_ids=(1,))]) is DrawKind.RARE
