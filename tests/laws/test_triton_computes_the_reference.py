"""Whole models wholly on Triton's operations: logits and tokens are those of the reference, in float32.

In the interpreter where there is no GPU. Rings are worked out by hand, and what no query may see is NaN.
"""

import pytest
import torch

from engine.execution.device_runner import DeviceParts, DeviceRunner
from engine.execution.link import HostLink
from engine.execution.plain_draw import DrawKind
from engine.kernels.ops import REFERENCE, triton_ops
from engine.layers.kit import LayerKit
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from tests.support.native_models import with_caches
from tests.support.pack_by_hand import RingRun
from tests.support.step_world import (
    MAX_CONTEXT,
    Job,
    StepWorld,
    plain_runner,
    random_decoder,
    some_request,
    world_spec,
)
from tests.support.tiny_model import write_tiny_checkpoint
from tests.support.triton_device import INTERPRETED, PLACES, skip_elsewhere

FAMILIES = {
    "llama-tied": {"family": "llama", "is_tied": True},
    "mistral-window": {"family": "mistral", "window": 8},
    "qwen2-window": {"family": "qwen2", "window": 8, "head_size": 12},
    "qwen3": {"family": "qwen3", "head_size": 32},
}
STEPS = [[(0, range(12))], [(0, [7]), (1, range(9))], [(1, [3]), (0, [4])]]
CODES_APART = (
    0.02  # of the logits' deviation: on a GPU a number may be rounded to the next code, now and then
)


@pytest.fixture(params=PLACES)
def place(request):
    skip_elsewhere(request.param)
    return request.param


@pytest.fixture(
    scope="module",
    params=[
        name if name == "mistral-window" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
    ],
)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return write_tiny_checkpoint(folder, with_tokenizer=False, **FAMILIES[request.param])


def run_on(ops, checkpoint, device, cached=torch.float32):
    """The logits of each step, on the CPU."""
    kit = LayerKit.dense(ops, device, torch.float32)
    decoder = load_decoder(checkpoint, read_spec(checkpoint), kit, lambda _done, _total: None)
    run = with_caches(RingRun(decoder, block_size=4, max_chunk=12, num_sequences=2), cached)
    return [run.step([(sequence, list(ids)) for sequence, ids in step]).cpu() for step in STEPS]


def test_every_family_computes_what_the_reference_computes(place, checkpoint):
    found = run_on(triton_ops(), checkpoint, place.device)

    for logits, expected in zip(found, run_on(REFERENCE, checkpoint, torch.device("cpu")), strict=True):
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "cached",
    [
        torch.int8,
        *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float8_e4m3fn, torch.float16)),
    ],
    ids=str,
)
def test_a_cache_of_another_type_gives_what_the_references_gives(place, tmp_path, cached):
    checkpoint = write_tiny_checkpoint(tmp_path, with_tokenizer=False, **FAMILIES["mistral-window"])
    expected = run_on(REFERENCE, checkpoint, torch.device("cpu"), cached)

    found = run_on(triton_ops(), checkpoint, place.device, cached)

    for logits, wanted in zip(found, expected, strict=True):
        assert (logits - wanted).abs().max() < CODES_APART * wanted.std()


def recorded_runner(parts):
    """The runner for devices, which replays recorded steps, and draws by Triton's kernel."""
    from engine.kernels.triton.sampling import TritonSampling

    sampling = TritonSampling(most_tile=64, room=64)

    def draw(kind, logits, columns):
        return sampling.draw(logits, None if kind is DrawKind.GREEDY else columns)

    runner = DeviceRunner(
        DeviceParts(
            model=parts.model,
            store=parts.store,
            layout=parts.layout,
            link=HostLink(),
            masks=parts.masks,
            max_running=parts.max_running,
            draw=draw,
        )
    )
    runner.record(lambda _done, _total: None)
    return runner


@pytest.mark.parametrize(
    ("windows", "make_runner"),
    [((None, None), plain_runner), pytest.param((None, 5), recorded_runner, marks=pytest.mark.slow)],
    ids=["full", "mixed-recorded"],
)
def test_an_engine_on_triton_draws_the_references_tokens(windows, make_runner):
    skip_elsewhere(INTERPRETED)
    kit = LayerKit.dense(triton_ops(MAX_CONTEXT), torch.device("cpu"), torch.float32)
    spec = world_spec(windows)
    jobs = [
        Job(some_request("a", "truncated", 7, max_tokens=4)),
        Job(some_request("b", "counted", 3, seed=1, max_tokens=3), at=1),
    ]
    expected = StepWorld(random_decoder(spec), windows, max_running=2).run(*jobs)

    found = StepWorld(random_decoder(spec, kit=kit), windows, make_runner, max_running=2).run(*jobs)

    assert [own.token_ids for (own,) in found] == [own.token_ids for (own,) in expected]
