import os

import pytest
import torch

from engine.config import CacheConfig, ModelConfig, SchedulingConfig
from engine.errors import ConfigError
from engine.execution import device as devices

CPU = torch.device("cpu")


def config(**fields):
    return ModelConfig(path="model", model_id="model", **fields)


def test_the_cpu_can_be_asked_for():
    assert devices.choose_device(config(device="cpu")) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        devices.choose_device(config(device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_falls_back_to_the_cpu():
    assert devices.choose_device(config()) == CPU


def test_a_named_dtype_is_taken():
    assert devices.choose_dtype(config(dtype="float64"), CPU) is torch.float64


def test_auto_takes_bfloat16_only_where_it_is_multiplied_natively():
    expected = torch.bfloat16 if devices.multiplies_bfloat16() else torch.float32

    assert devices.choose_dtype(config(), CPU) is expected


@pytest.mark.parametrize(
    ("kv_dtype", "expected"),
    [
        ("auto", torch.float16),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("int8", torch.int8),
        ("fp8", torch.float8_e4m3fn),
    ],
)
def test_the_cache_has_the_dtype_asked_for_or_the_models(kv_dtype, expected):
    assert devices.choose_cache_dtype(CacheConfig(kv_dtype=kv_dtype), torch.float16) is expected


def test_a_cpu_pool_has_256_mebibytes_unless_told_otherwise():
    assert devices.cpu_cache_bytes(CacheConfig()) == 256 << 20
    assert devices.cpu_cache_bytes(CacheConfig(kv_cache_bytes=12345)) == 12345


@pytest.mark.parametrize(
    ("asked", "device", "expected"), [(None, "cuda", 2), (None, "cpu", 1), (1, "cuda", 1), (2, "cpu", 2)]
)
def test_one_step_is_looked_ahead_on_a_gpu_unless_told_otherwise(asked, device, expected):
    config = SchedulingConfig(steps_in_flight=asked)

    assert devices.choose_steps_in_flight(config, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cuda", 512), (None, "cpu", 128), (7, "cuda", 7), (300, "cpu", 300)],
)
def test_a_step_that_decodes_takes_few_tokens_of_prompts_on_a_cpu_unless_told_otherwise(
    asked, device, expected
):
    config = SchedulingConfig(max_step_tokens=512, max_mixed_tokens=asked)

    assert devices.choose_mixed_tokens(config, torch.device(device)) == expected


def test_threads_default_to_the_cores_this_process_may_use():
    before = torch.get_num_threads()
    try:
        assert devices.set_cpu_threads(config()) == devices.num_usable_cores()
        assert devices.set_cpu_threads(config(cpu_threads=1)) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("content", "most"),
    [("max 100000", None), ("100000 100000", 1), ("150000 100000", 2), ("5000 100000", 1), ("", None)],
    ids=["none", "one", "one-and-a-half", "a-twentieth", "unreadable"],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, content, most):
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    num_cores = len(os.sched_getaffinity(0))

    assert devices.num_usable_cores(quota) == (num_cores if most is None else min(most, num_cores))
    assert devices.num_usable_cores(tmp_path / "missing") == num_cores
