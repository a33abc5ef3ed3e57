"""The native runner against the torch one on the same kernels: the same plans, the same results."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.cache.layout import CacheDemand, plan_layout
from engine.cache.store import CacheStore
from engine.execution.native_runner import NativeRunner
from engine.execution.native_sampler import NativeSampler
from engine.execution.runner import ModelRunner
from engine.kernels.cpu.sampling import NativeSampling
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams
from tests.support.fused_run import fused
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.native_models import load_native
from tests.support.tensor_sampler import OnTensors
from tests.support.tiny_model import write_tiny_checkpoint

pytestmark = needs_native

BLOCK_SIZE = 4


class Masks:
    """Allows each sequence one token, its own id and 100."""

    def fill(self, sequence_ids):
        from concurrent.futures import Future

        bits = np.zeros((len(sequence_ids), 9), dtype=np.uint32)
        for row, sequence_id in enumerate(sequence_ids):
            bits[row, (100 + sequence_id) // 32] = 1 << (100 + sequence_id) % 32
        filled = Future()
        filled.set_result(bits.view(np.int32))
        return filled


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return load_native(write_tiny_checkpoint(folder, "mistral", window=8, with_tokenizer=False), LEVELS[-1])


@pytest.fixture
def runners(decoder):
    """(native runner, torch runner), each with a cache of its own."""
    demand = CacheDemand(
        block_size=BLOCK_SIZE, cache_bytes=1 << 20, max_chunk_tokens=16, element_bytes=2, max_context=None
    )
    layout = plan_layout(decoder.spec, demand)
    stores = [
        CacheStore.allocate(layout, decoder.spec, device=torch.device("cpu"), dtype=torch.bfloat16)
        for _ in range(2)
    ]
    kernels = native_kernels(LEVELS[-1])
    sampler = NativeSampler(NativeSampling(kernels))
    model = fused(decoder, kernels, stores[0].layers, layout.block_size)
    return (
        NativeRunner(model, sampler, masks=Masks()),
        ModelRunner(decoder, stores[1], layout, masks=Masks(), sampler=OnTensors(sampler)),
    )


def chunk(sequence_id, token_ids, *, start=0, draws=True, masked=False, sampling=None, **fields):
    params = SamplingParams(**{"max_tokens": 1, "seed": 3, "temperature": 0.0, **(sampling or {})})
    stop = start + len(token_ids) + fields.get("takes_last_draw", False)
    first = max(0, start - 7) // BLOCK_SIZE
    table = ChunkTable(
        first, tuple(8 * sequence_id + number for number in range(first, -(-stop // BLOCK_SIZE)))
    )
    draw = Draw(sampling=params, choice=0, is_masked=masked, history=tuple(token_ids)) if draws else None
    return Chunk(sequence_id, start, stop, tuple(token_ids), (table,), draw=draw, **fields)


STEPS = {
    "draws": [chunk(0, [5, 6]), chunk(1, [9], sampling={"temperature": 1.0}), chunk(2, [7, 8, 9])],
    "a prompt's middle": [chunk(0, [5, 6, 7]), chunk(1, [9, 8, 7], draws=False)],
    "nothing drawn": [chunk(1, [9, 8, 7], draws=False)],
    "log-probabilities": [
        chunk(0, [5], sampling={"logprobs": True, "num_top_logprobs": 3}),
        chunk(1, [6]),
        chunk(2, [7], sampling={"logprobs": True}),
    ],
    "scores": [
        chunk(0, [5, 6, 7], draws=False, score_from=0, score_ids=(6, 7, 8), num_score_top=2),
        chunk(1, [6, 7], score_from=1, score_ids=(9,)),
        chunk(2, [4]),
    ],
    "masks": [chunk(0, [5]), chunk(1, [6], masked=True), chunk(2, [7], masked=True)],
    "penalties": [chunk(0, [5, 5], sampling={"repetition_penalty": 2.0}), chunk(1, [6])],
}


def run(runner, chunks):
    return runner.finish(runner.begin(StepPlan(chunks=tuple(chunks))))


@pytest.mark.parametrize("chunks", STEPS.values(), ids=STEPS)
def test_a_step_finds_what_the_torch_runner_finds(runners, chunks):
    native, torch_runner = runners
    later = [replace_start(one, one.stop) for one in chunks]

    for step in (chunks, later):
        assert run(native, step) == run(torch_runner, step)


def replace_start(one, start):
    """The same tokens once more, behind those that are there."""
    draw = one.draw
    params = {} if draw is None else {"sampling": draw.sampling, "is_masked": draw.is_masked}
    again = chunk(one.sequence_id, one.token_ids, start=start, draws=draw is not None)
    return again._replace(draw=None if draw is None else again.draw._replace(**params))


@pytest.mark.parametrize("sampling", [{}, {"logprobs": True}], ids=["in one call", "with answers"])
def test_a_chunk_takes_the_token_that_the_step_before_drew(runners, sampling):
    native, _ = runners
    first = native.begin(StepPlan(chunks=(chunk(1, [9], draws=False), chunk(0, [5, 6], sampling=sampling))))
    taking = chunk(0, [], start=2, takes_last_draw=True, sampling=sampling)
    second = native.begin(StepPlan(chunks=(taking,)))
    ((_, (token_id,)), found) = native.finish(first).token_ids, native.finish(second)

    told = chunk(0, [token_id], start=2, sampling=sampling)
    assert run(native, [told]) == found


def test_what_one_row_asks_for_changes_no_other(runners):
    native, _ = runners
    plain = [chunk(row, [row + 5], sampling={"temperature": 1.0}) for row in range(3)]
    asking = [*plain[:2], plain[2]._replace(draw=replace_sampling(plain[2].draw, logprobs=True))]

    assert run(native, plain).token_ids == run(native, asking).token_ids


def replace_sampling(draw, **changes):
    return draw._replace(sampling=replace(draw.sampling, **changes))
