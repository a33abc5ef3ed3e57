"""Law 6, parity: our chunked, paged, ringed run gives the logits of transformers' full forward pass."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.ops import select_ops
from engine.layers.kit import LayerKit
from engine.models.decoder import Decoder
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from tests.support.pack_by_hand import RingRun
from tests.support.tiny_model import ROPE_LLAMA3, oracle_logits, oracle_model, write_tiny_checkpoint

WINDOW = 8
NUM_TOKENS = 3 * WINDOW
TOLERANCE = 1e-4
CPU = torch.device("cpu")
VARIANTS: dict[str, dict[str, object]] = {
    "llama": {"family": "llama"},
    "llama-tied": {"family": "llama", "is_tied": True},
    "llama-llama3-rope": {"family": "llama", "rope_parameters": ROPE_LLAMA3},
    "llama-linear-rope": {
        "family": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
    },
    "mistral": {"family": "mistral"},
    "mistral-window": {"family": "mistral", "window": WINDOW},
    "qwen2": {"family": "qwen2", "is_tied": True, "head_size": 12},
    "qwen2-window": {"family": "qwen2", "window": WINDOW, "head_size": 12},
    "qwen3": {"family": "qwen3", "head_size": 32},
    "qwen3-window": {"family": "qwen3", "window": WINDOW, "num_layers": 3},
}


def load(folder: Path, window: int | None = None, dtype: torch.dtype = torch.float32) -> Decoder:
    kit = LayerKit.dense(select_ops(CPU, dtype, "reference"), CPU, dtype)
    return load_decoder(folder, read_spec(folder).with_window(window), kit, lambda _done, _total: None)


@pytest.fixture(scope="module", params=VARIANTS, ids=VARIANTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(our decoder, transformers' model) of one checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_checkpoint(folder, with_tokenizer=False, **VARIANTS[request.param])
    return load(folder), oracle_model(folder)


def random_ids(seed: int, count: int = NUM_TOKENS) -> list[int]:
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@st.composite
def chunkings(draw: st.DrawFn) -> list[int]:
    """Chunk lengths of a sequence of 1 to 3 W tokens; decodes, being the common case, come often."""
    left, chunks = draw(st.integers(1, NUM_TOKENS)), []
    while left:
        chunks.append(min(left, draw(st.sampled_from((1, 1, 2, 3, 5, 7, 8, 9, 16, 24)))))
        left -= chunks[-1]
    return chunks


@settings(max_examples=12, derandomize=True)
@given(
    chunks=st.lists(chunkings(), min_size=1, max_size=3),
    block_size=st.sampled_from((1, 3, 4, 16)),
    seed=st.integers(0, 99),
)
def test_chunked_ringed_logits_are_those_of_a_full_forward_pass(model, chunks, block_size, seed):
    ours, theirs = model
    ids = [random_ids(seed + sequence) for sequence in range(len(chunks))]
    run = RingRun(
        ours,
        block_size=block_size,
        max_chunk=max(max(lengths) for lengths in chunks),
        num_sequences=len(chunks),
        seed=seed,
    )

    found: list[list[torch.Tensor]] = [[] for _ in chunks]
    for step in range(max(len(lengths) for lengths in chunks)):
        parts = []
        for sequence, lengths in enumerate(chunks):
            if step < len(lengths):
                start = run.lengths[sequence]
                parts.append((sequence, ids[sequence][start : start + lengths[step]]))
        rows = run.step(parts).split([len(token_ids) for _, token_ids in parts])
        for (sequence, _), logits in zip(parts, rows, strict=True):
            found[sequence].append(logits)

    for sequence, logits in enumerate(found):
        expected = oracle_logits(theirs, ids[sequence][: run.lengths[sequence]])
        torch.testing.assert_close(torch.cat(logits), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1])
@pytest.mark.parametrize("chunk", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
def test_corner_lengths_of_a_windowed_model_agree(windowed_pair, length, chunk, block_size):
    ours, theirs = windowed_pair
    ids = random_ids(7)[:length]
    run = RingRun(ours, block_size=block_size, max_chunk=chunk)

    logits = torch.cat([run.step([(0, ids[start : start + chunk])]) for start in range(0, length, chunk)])

    torch.testing.assert_close(logits, oracle_logits(theirs, ids), atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def windowed_pair(tmp_path_factory: pytest.TempPathFactory):
    folder = write_tiny_checkpoint(
        tmp_path_factory.mktemp("windowed"), "mistral", window=WINDOW, with_tokenizer=False
    )
    return load(folder), oracle_model(folder)


def test_an_imposed_window_makes_a_llama_a_windowed_mistral(tmp_path):
    import transformers

    llama = write_tiny_checkpoint(tmp_path / "llama", "llama", with_tokenizer=False)
    mistral = write_tiny_checkpoint(tmp_path / "mistral", "mistral", window=WINDOW, with_tokenizer=False)
    theirs = transformers.MistralForCausalLM.from_pretrained(mistral, attn_implementation="eager")
    theirs.load_state_dict(oracle_model(llama).state_dict())
    ids = random_ids(3)
    run = RingRun(load(llama, window=WINDOW), block_size=4, max_chunk=5)

    logits = torch.cat([run.step([(0, ids[start : start + 5])]) for start in range(0, NUM_TOKENS, 5)])

    torch.testing.assert_close(logits, oracle_logits(theirs.eval(), ids), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("distance", "is_seen"), [(WINDOW, False), (WINDOW - 1, True)])
def test_the_oracle_is_windowed(tmp_path, distance, is_seen):
    """One layer: token i − W must not move the logits at i, token i − W + 1 must."""
    folder = write_tiny_checkpoint(tmp_path, "mistral", window=WINDOW, num_layers=1, with_tokenizer=False)
    theirs, ids, at = oracle_model(folder), random_ids(5), 2 * WINDOW
    changed = list(ids)
    changed[at - distance] = (changed[at - distance] + 1) % 256

    moved = (oracle_logits(theirs, ids)[at] - oracle_logits(theirs, changed)[at]).abs().max()

    assert (moved > 1e-3) == is_seen


@pytest.mark.parametrize(("distance", "is_seen"), [(WINDOW, False), (WINDOW - 1, True)])
def test_our_window_ends_at_the_same_token(tmp_path, distance, is_seen):
    folder = write_tiny_checkpoint(tmp_path, "mistral", window=WINDOW, num_layers=1, with_tokenizer=False)
    ids, at = random_ids(5), 2 * WINDOW
    changed = list(ids)
    changed[at - distance] = (changed[at - distance] + 1) % 256
    ours = load(folder)

    logits = [
        RingRun(ours, block_size=4, max_chunk=NUM_TOKENS).step([(0, token_ids)])[at]
        for token_ids in (ids, changed)
    ]

    assert bool((logits[0] - logits[1]).abs().max() > 1e-3) == is_seen
