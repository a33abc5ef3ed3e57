import pytest
import torch

from engine.config import CacheConfig
from engine.errors import ConfigError
from engine.execution.memory_plan import CudaMeter, MemoryPlan, explained_shortage, plan_memory

GIB = 1 << 30


class FakeDevice:
    """80 GiB, of which others hold 2; keeps what is held, as a Meter and as what acts."""

    def __init__(self, *, weights=14 * GIB):
        self.held = 2 * GIB + weights
        self.workspace = 1 * GIB
        self.num_steps = 0
        self.recorded = []

    def free(self):
        return 80 * GIB - self.held, 80 * GIB

    def peak_of(self, act):
        act()
        return 3 * GIB

    def run_step(self):
        self.held += self.workspace if self.num_steps == 0 else 0
        self.num_steps += 1

    def record(self, number):
        self.held += (number - len(self.recorded)) * GIB // 100 + (0 if self.recorded else 4 * GIB)
        self.recorded = [None] * number
        return 101


def plan_on(device, fraction=0.9, *, is_recorded=True):
    return plan_memory(device, fraction, device.run_step, device.record if is_recorded else None)


def test_the_cache_gets_what_all_else_leaves():
    plan = plan_on(FakeDevice())

    assert (plan.total, plan.used, plan.step) == (80 * GIB, 17 * GIB, 3 * GIB)
    assert plan.recorded == pytest.approx(4 * GIB + 101 * GIB / 100, abs=200)
    assert plan.cache_bytes == 72 * GIB - plan.used - plan.step - plan.recorded
    assert plan.check(CacheConfig()) == plan.cache_bytes


def test_without_recording_nothing_is_set_aside_for_it():
    device = FakeDevice()

    assert plan_on(device, is_recorded=False).recorded == 0
    assert device.recorded == []


def test_a_named_size_is_taken_though_the_fraction_would_leave_less():
    plan = plan_on(FakeDevice(), 0.3)

    assert plan.check(CacheConfig(kv_cache_bytes=50 * GIB)) == 50 * GIB


def test_a_named_size_beyond_the_room_is_refused_with_the_figures():
    with pytest.raises(
        ConfigError, match=r"kv_cache_bytes is 64424509440, .* used=17408 .* lower it"
    ) as caught:
        plan_on(FakeDevice()).check(CacheConfig(kv_cache_bytes=60 * GIB))

    assert "--max-step-tokens" in caught.value.message


def test_no_room_at_all_is_refused_with_the_figures_and_what_to_lower():
    with pytest.raises(ConfigError, match=r"memory_fraction 0.9 \(MiB: total=81920 .* cache=-") as caught:
        plan_on(FakeDevice(weights=70 * GIB)).check(CacheConfig())

    for flag in ("--max-step-tokens", "--max-running", "--quantization fp8", "--eager"):
        assert flag in caught.value.message


def test_a_device_that_gives_memory_back_meanwhile_takes_nothing_from_the_cache():
    device = FakeDevice()
    device.workspace = -GIB
    plan = plan_on(device, is_recorded=False)

    assert plan.used == 16 * GIB


def test_running_out_of_memory_at_start_says_what_was_done_and_what_to_lower():
    with (
        pytest.raises(ConfigError, match=r"while loading weights: 65536 of 81920 MiB are free") as caught,
        explained_shortage(FakeDevice(), "loading weights"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert "--max-step-tokens" in caught.value.message


def test_the_figures_are_told_in_mebibytes():
    plan = MemoryPlan(total=100 << 20, used=10 << 20, step=5 << 20, recorded=1 << 20, fraction=0.5)

    assert plan.describe() == "total=100 used=10 step=5 recorded=1 cache=34"


@pytest.mark.gpu
def test_cuda_is_measured():
    device = torch.device("cuda")
    meter = CudaMeter(device)
    free, total = meter.free()

    def act():
        torch.empty(3 << 20, dtype=torch.float32, device=device)

    assert meter.peak_of(act) == 12 << 20
    assert 0 < free < total
