"""The edits of logits in numpy against those in torch: the same bits."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution.native_edits import edited
from engine.execution.sampler import edit
from engine.execution.sampling_rows import Edits
from engine.plan import Draw
from engine.request import SamplingParams

VOCAB = 70
TOKENS = st.integers(0, VOCAB - 1)
SOME = st.lists(TOKENS, max_size=5, unique=True).map(tuple)
PENALTIES = st.sampled_from([0.0, 0.7, -1.3])


@st.composite
def draws(draw):
    sampling = SamplingParams(
        max_tokens=1,
        seed=0,
        presence_penalty=draw(PENALTIES),
        frequency_penalty=draw(PENALTIES),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.8])),
        dry_multiplier=draw(st.sampled_from([0.0, 0.9])),
        logit_bias=tuple((token, float(token % 7) - 3) for token in sorted(draw(SOME))),
        allowed_ids=draw(SOME),
        bad_words_ids=tuple((token,) for token in draw(SOME)),
    )
    history = draw(st.lists(st.integers(0, 5), max_size=12).map(tuple))
    return Draw(
        sampling=sampling,
        choice=0,
        history=history,
        num_prompt=draw(st.integers(0, len(history))),
        banned_ids=draw(SOME),
        is_masked=draw(st.booleans()),
    )


def in_torch(logits, rows, bits):
    edits = Edits.gather(rows, bits, torch.from_numpy(logits))
    return logits if edits is None else edit(torch.from_numpy(logits), edits).numpy()


@settings(max_examples=150)
@given(st.lists(draws(), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_every_mix_of_edits_gives_the_bits_that_torch_gives(rows, seed):
    random = np.random.default_rng(seed)
    logits = (4 * random.standard_normal((len(rows), VOCAB))).astype(np.float32)
    logits[random.random(logits.shape) < 0.1] = -np.inf
    num_masked = sum(row.is_masked for row in rows)
    bits = random.integers(-(2**31), 2**31, (num_masked, 3), dtype=np.int32) if num_masked else None

    found = edited(logits, rows, bits)

    assert np.array_equal(found, in_torch(logits, rows, bits), equal_nan=True)


def plain(**fields):
    return Draw(sampling=SamplingParams(max_tokens=1, seed=0), choice=0, **fields)


def test_logits_that_nobody_edits_are_not_copied():
    logits = np.zeros((2, VOCAB), dtype=np.float32)

    assert edited(logits, [plain(), plain()], None) is logits


def test_edited_logits_are_a_copy():
    logits = np.zeros((2, VOCAB), dtype=np.float32)

    changed = edited(logits, [plain(), plain(banned_ids=(3,))], None)

    assert not logits.any()
    assert changed[1, 3] == -np.inf


def test_a_ban_that_leaves_nothing_is_none():
    logits = np.ones((1, VOCAB), dtype=np.float32)

    assert edited(logits, [plain(banned_ids=tuple(range(VOCAB)))], None).tolist() == logits.tolist()
