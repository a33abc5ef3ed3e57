"""The native kernels on the demo model: a text is as likely as under the reference, token for token."""

import math
from pathlib import Path

import pytest
import torch

from engine.text.tokenizer import Tokenizer
from tests.support.fused_run import fuse
from tests.support.native import LEVELS, needs_native
from tests.support.native_models import load_native, load_reference, native_run
from tests.support.pack_by_hand import RingRun

pytestmark = [pytest.mark.demo_model, needs_native]

TEXT = Path(__file__).parents[1] / "data" / "perplexity.txt"
PERPLEXITY_ERROR = 0.005
LOGPROB_ERROR = 0.02
SIZES = {"block_size": 16, "max_chunk": 1024, "max_context": 1024}


@pytest.fixture(scope="module")
def token_ids(demo_model_path):
    return Tokenizer.load(demo_model_path).encode(TEXT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected(demo_model_path, token_ids):
    return logprobs(RingRun(load_reference(demo_model_path), **SIZES), token_ids)


def logprobs(run: RingRun, token_ids: list[int]) -> torch.Tensor:
    """Of every token but the first, given those before it."""
    logits = run.step([(0, token_ids)])[:-1]
    chosen = logits.gather(-1, torch.tensor(token_ids[1:])[:, None]).squeeze(-1)
    return chosen - logits.logsumexp(-1)


@pytest.mark.parametrize("level", LEVELS[-1:])
def test_perplexity_and_log_probabilities_are_the_references(demo_model_path, token_ids, expected, level):
    run = fuse(native_run(load_native(demo_model_path, level), **SIZES), level)

    found = logprobs(run, token_ids)

    ratio = math.exp(expected.mean() - found.mean())
    assert len(token_ids) > 700
    assert ratio == pytest.approx(1, abs=PERPLEXITY_ERROR)
    assert (found - expected).abs().mean() <= LOGPROB_ERROR
