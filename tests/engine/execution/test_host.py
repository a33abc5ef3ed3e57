import ctypes.util
import os

import pytest

from engine.config import CacheConfig, ModelConfig, SchedulingConfig
from engine.errors import ConfigError
from engine.execution import host


def config(**fields):
    return ModelConfig(path="model", model_id="model", **fields)


def test_a_cpu_pool_has_256_mebibytes_unless_told_otherwise():
    assert host.cpu_cache_bytes(CacheConfig()) == 256 << 20
    assert host.cpu_cache_bytes(CacheConfig(kv_cache_bytes=12345)) == 12345


@pytest.mark.parametrize(
    ("asked", "device", "expected"), [(None, "cuda", 2), (None, "cpu", 1), (1, "cuda", 1), (2, "cpu", 2)]
)
def test_one_step_is_looked_ahead_on_a_gpu_unless_told_otherwise(asked, device, expected):
    config = SchedulingConfig(steps_in_flight=asked)

    assert host.choose_steps_in_flight(config, device) == expected


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cuda", 512), (None, "cpu", 128), (7, "cuda", 7), (300, "cpu", 300)],
)
def test_a_step_that_decodes_takes_few_tokens_of_prompts_on_a_cpu_unless_told_otherwise(
    asked, device, expected
):
    config = SchedulingConfig(max_step_tokens=512, max_mixed_tokens=asked)

    assert host.choose_mixed_tokens(config, device) == expected


def test_threads_default_to_the_cores_this_process_may_use():
    assert host.choose_num_threads(config()) == host.num_usable_cores()
    assert host.choose_num_threads(config(cpu_threads=1)) == 1


@pytest.mark.parametrize(
    ("content", "most"),
    [("max 100000", None), ("100000 100000", 1), ("150000 100000", 2), ("5000 100000", 1), ("", None)],
    ids=["none", "one", "one-and-a-half", "a-twentieth", "unreadable"],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, content, most):
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    num_cores = len(os.sched_getaffinity(0))

    assert host.num_usable_cores(quota) == (num_cores if most is None else min(most, num_cores))
    assert host.num_usable_cores(tmp_path / "missing") == num_cores


def test_a_gpu_is_possible_where_a_driver_can_be_loaded_or_amds_device_stands(tmp_path):
    missing, present = tmp_path / "missing", tmp_path / "kfd"
    present.touch()
    any_library = ctypes.util.find_library("c")

    assert not host.may_have_gpu("libno-driver.so.1", missing)
    assert host.may_have_gpu("libno-driver.so.1", present)
    assert host.may_have_gpu(any_library, missing)


@pytest.mark.parametrize(
    ("ways", "is_native", "message"),
    [
        ({"quantization": "fp8"}, True, "on a CPU take int8 or int4"),
        ({"deterministic": True}, False, "ask for no --kernels reference"),
    ],
    ids=["fp8", "deterministic"],
)
def test_what_a_cpu_cannot_serve_is_refused_with_what_it_can(ways, is_native, message):
    with pytest.raises(ConfigError, match=message):
        host.refuse_on_cpu(config(**ways), is_native=is_native)


def test_the_native_kernels_are_deterministic_as_they_are():
    host.refuse_on_cpu(config(deterministic=True, quantization="int8"), is_native=True)
