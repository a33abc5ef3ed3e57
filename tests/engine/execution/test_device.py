import pytest
import torch

from engine.config import CacheConfig, ModelConfig
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
