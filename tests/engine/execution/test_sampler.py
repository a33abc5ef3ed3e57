import torch

from engine.execution.sampler import SamplingRows, sample, token_logprobs
from engine.plan import Draw
from engine.request import SamplingParams

CPU = torch.device("cpu")
LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64))


def draws(*params, choice=0):
    return [
        Draw(sampling=SamplingParams(max_tokens=1, **{"seed": 0, **own}), choice=choice) for own in params
    ]


def rows(own, positions=None):
    positions = positions or [0] * len(own)
    return SamplingRows.gather(own, positions, device=CPU, dtype=torch.float64)


def frequencies(num_draws, **params):
    own = draws(*[{**params, "seed": seed} for seed in range(num_draws)])
    token_ids, _ = sample(LOGITS.repeat(num_draws, 1), rows(own))
    return (torch.bincount(token_ids, minlength=4) / num_draws).tolist()


def test_a_greedy_row_takes_the_largest_logit():
    token_ids, logprobs = sample(LOGITS, rows(draws({"temperature": 0.0})))

    assert token_ids.tolist() == [0]
    assert logprobs is None


def test_the_distribution_is_that_of_the_logits():
    assert torch.allclose(
        torch.tensor(frequencies(20_000)), torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.015
    )


def test_temperature_sharpens_the_distribution():
    expected = torch.tensor([0.25, 0.0625, 0.015625, 0.015625])

    assert torch.allclose(
        torch.tensor(frequencies(20_000, temperature=0.5)), expected / expected.sum(), atol=0.015
    )


def test_top_k_draws_nothing_else():
    first, _, *others = frequencies(5_000, top_k=2)

    assert others == [0.0, 0.0]
    assert abs(first - 2 / 3) < 0.03


def test_top_p_draws_nothing_else():
    assert frequencies(2_000, top_p=0.6)[2:] == [0.0, 0.0]


def test_a_seeded_row_draws_the_same_alone_and_in_company():
    params = [{"seed": 5}, {"temperature": 0.0}, {"seed": 9, "top_p": 0.9}, {"seed": 11, "top_k": 3}]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    together, _ = sample(logits, rows(draws(*params), [3, 4, 5, 6]))
    alone = [sample(logits[i : i + 1], rows(draws(own), [3 + i]))[0].item() for i, own in enumerate(params)]

    assert together.tolist() == alone


def test_log_probabilities_are_of_the_raw_logits():
    own = draws({"temperature": 0.1, "logprobs": True, "seed": 1})
    token_ids, logprobs = sample(LOGITS * 3 + 7, rows(own))

    assert torch.allclose(logprobs, (LOGITS * 3).log_softmax(-1)[0, token_ids])


def test_a_masked_token_is_never_drawn_at_the_edges():
    logits = torch.full((2, 4), -torch.inf, dtype=torch.float64)
    logits[:, 1:3] = 0.0
    edges = SamplingRows(
        random_rows=torch.tensor([0, 1]),
        uniforms=torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64),
        temperature=torch.ones(2, dtype=torch.float64),
        top_k=None,
        top_p=None,
        needs_logprobs=False,
    )

    assert sample(logits, edges)[0].tolist() == [1, 2]


def test_a_given_token_is_scored_by_its_row():
    assert torch.allclose(token_logprobs(LOGITS, torch.tensor([2])).exp(), torch.tensor([0.125]).double())
