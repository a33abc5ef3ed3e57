"""The laws of recorded steps on a real device: CUDA graphs, streams and pinned memory, and Triton's operations.

In float32 and without TF32; prompts and weights are such that no two tokens are as probable.
"""

import pytest
import torch

from engine.config import ModelConfig
from engine.execution.gpu_kernels import choose_gpu_kernels
from tests.support.random_jobs import check
from tests.support.step_world import (
    HABITS,
    MAX_CONTEXT,
    Job,
    StepWorld,
    device_runner,
    eager_device_runner,
    random_decoder,
    some_request,
    world_spec,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
WINDOWS = [(None, None), (6, 6), (None, 5)]


@pytest.fixture(scope="module", params=WINDOWS, ids=["full", "window6", "mixed"])
def windows(request):
    return request.param


@pytest.fixture(scope="module", params=["reference", "triton"])
def model(request, windows):
    config = ModelConfig(
        path="m",
        model_id="m",
        kernels="reference" if request.param == "reference" else "auto",
        deterministic=request.param != "reference",
    )
    kernels = choose_gpu_kernels(config, DEVICE, torch.float32, MAX_CONTEXT)
    return random_decoder(world_spec(windows), kit=kernels.kit)


def jobs_of(num_rounds=2):
    return [
        Job(some_request(f"r{i}", habit, (1, 4, 9, 22, 40)[i % 5], seed=i, n=1 + i % 2), at=i % 7)
        for i, habit in enumerate(sorted(HABITS) * num_rounds)
    ]


@pytest.mark.parametrize("make_runner", [eager_device_runner, device_runner], ids=["eager", "recorded"])
@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_a_device_gives_what_the_host_gives(model, windows, make_runner, steps_in_flight):
    jobs = jobs_of()
    expected = StepWorld(random_decoder(world_spec(windows)), windows, max_running=4).run(*jobs)
    world = StepWorld(model, windows, make_runner, steps_in_flight=steps_in_flight, max_running=7)
    outcomes = world.run(*jobs)

    differing = sum(
        [own.token_ids for own in outcome] != [own.token_ids for own in whole]
        for outcome, whole in zip(outcomes, expected, strict=True)
    )
    assert differing <= len(jobs) // 10, "float32 may decide a tie otherwise than float64, now and then"


def test_recording_and_looking_ahead_change_no_token_on_a_device(model, windows):
    jobs = jobs_of()
    expected = StepWorld(model, windows, eager_device_runner, max_running=7).run(*jobs)
    outcomes = StepWorld(model, windows, device_runner, steps_in_flight=2, max_running=7).run(*jobs)

    for outcome, whole in zip(outcomes, expected, strict=True):
        check_tokens(outcome, whole)


def check_tokens(outcome, whole):
    for own, other in zip(outcome, whole, strict=True):
        own.logprobs, other.logprobs = [], []
    check(outcome, whole, is_cut_short=False)
