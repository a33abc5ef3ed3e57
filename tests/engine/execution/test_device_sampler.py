import numpy as np
import pytest
import torch

from engine.execution.device_sampler import DeviceSampler
from engine.execution.plain_draw import DrawKind, draw_plainly
from engine.execution.sampler import TorchSampler
from engine.plan import Draw
from engine.request import SamplingParams


def draw(history=(), num_prompt=0, banned_ids=(), is_masked=False, **sampling):
    return Draw(
        sampling=SamplingParams(**{"max_tokens": 1, "seed": 4, **sampling}),
        choice=0,
        history=history,
        num_prompt=num_prompt,
        banned_ids=banned_ids,
        is_masked=is_masked,
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
RARE = draw(typical_p=0.5)


def noise(num_rows):
    return 3 * torch.randn(num_rows, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def refuse(kind, logits, columns):
    raise AssertionError("a plain draw was made where none does")


@pytest.mark.parametrize("draws", [MIXED, MIXED[4:7], [*MIXED, RARE]], ids=["scored", "not scored", "rare"])
def test_rows_that_ask_for_different_things_get_what_the_torch_sampler_gives(draws):
    positions = list(range(len(draws)))
    token_ids, scores = DeviceSampler(draw_plainly).draw(noise(len(draws)), draws, positions)
    expected_ids, expected = TorchSampler().draw(noise(len(draws)), draws, positions)

    assert token_ids.tolist() == expected_ids.tolist()
    assert (scores is None) == (expected is None)
    for found, wanted in zip(scores or (), expected or (), strict=True):
        torch.testing.assert_close(found, wanted)


def test_masks_hold_for_their_own_rows():
    draws = [draw(), draw(is_masked=True), draw(temperature=0.0, is_masked=True)]
    bits = np.array([[1 << 5, 0, 0], [0, 1 << 8, 0]], dtype=np.int32)

    token_ids, _ = DeviceSampler(draw_plainly).draw(noise(3), draws, [0, 1, 2], bits)

    assert token_ids.tolist()[1:] == [5, 40]


def test_the_raw_logits_are_left_alone():
    logits = noise(1)

    DeviceSampler(draw_plainly).draw(logits, [draw(logit_bias=((3, 5.0),))], [0])

    assert torch.equal(logits, noise(1))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([MIXED[4], MIXED[6]], DrawKind.GREEDY),
        ([MIXED[3], MIXED[4]], DrawKind.RANDOM),
        ([MIXED[3], MIXED[5]], DrawKind.TRUNCATED),
    ],
    ids=["greedy", "random", "truncated"],
)
def test_edited_rows_are_drawn_in_the_plain_way_that_does(draws, expected):
    kinds = []

    def noting(kind, logits, columns):
        kinds.append(kind)
        return draw_plainly(kind, logits, columns)

    DeviceSampler(noting).draw(noise(len(draws)), draws, list(range(len(draws))))

    assert kinds == [expected]


def test_stages_that_no_plain_draw_has_are_left_to_the_torch_sampler():
    token_ids, _ = DeviceSampler(refuse).draw(noise(1), [RARE], [0])

    assert token_ids.tolist() == TorchSampler().draw(noise(1), [RARE], [0])[0].tolist()


def test_given_tokens_are_scored_as_by_the_torch_sampler():
    ids = torch.tensor([3, 50])

    found = DeviceSampler(refuse).score(noise(2), ids, 3)

    for own, wanted in zip(found, TorchSampler().score(noise(2), ids, 3), strict=True):
        assert torch.equal(own, wanted)
