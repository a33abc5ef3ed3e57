import pytest
import torch

from engine.config import CacheConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.gpu_kernels import Abilities, choose_gpu_kernels, refuse_impossible

CPU = Abilities(capability=None, has_triton=False)
AMPERE = Abilities(capability=(8, 0), has_triton=True)
ADA = Abilities(capability=(8, 9), has_triton=True)
HOPPER = Abilities(capability=(9, 0), has_triton=True)
HOPPER_BARE = Abilities(capability=(9, 0), has_triton=False)


def check(abilities, *, is_native=False, dtype=torch.bfloat16, kv_dtype="auto", **model):
    config = ModelConfig(path="m", model_id="m", **model)
    refuse_impossible(config, CacheConfig(kv_dtype=kv_dtype), abilities, is_native=is_native, dtype=dtype)


@pytest.mark.parametrize(
    ("abilities", "ways"),
    [
        (CPU, {}),
        (CPU, {"is_native": True, "deterministic": True}),
        (CPU, {"kv_dtype": "fp8"}),
        (AMPERE, {"deterministic": True}),
        (AMPERE, {"kv_dtype": "int8"}),
        (ADA, {"quantization": "fp8", "kv_dtype": "fp8"}),
        (HOPPER, {"quantization": "fp8"}),
        (HOPPER, {"deterministic": True, "kv_dtype": "fp8"}),
        (HOPPER_BARE, {"kernels": "reference"}),
    ],
    ids=str,
)
def test_what_can_be_had_is_let_through(abilities, ways):
    check(abilities, **ways)


@pytest.mark.parametrize(
    ("abilities", "ways", "message"),
    [
        (CPU, {"quantization": "fp8"}, "on a CPU take int8 or int4"),
        (CPU, {"deterministic": True}, "take --kernels native"),
        (AMPERE, {"quantization": "fp8"}, "has compute capability 8.0; 8.9"),
        (AMPERE, {"kv_dtype": "fp8"}, "take int8"),
        (HOPPER, {"quantization": "fp8", "dtype": torch.float16}, "dtype float16; .* take --dtype bfloat16"),
        (HOPPER, {"deterministic": True, "kernels": "reference"}, "take --kernels auto"),
        (HOPPER_BARE, {"deterministic": True}, "take --kernels auto"),
        (HOPPER, {"deterministic": True, "quantization": "fp8"}, "take one of the two"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_refused_with_what_can(abilities, ways, message):
    with pytest.raises(ConfigError, match=message):
        check(abilities, **ways)


def test_a_cpu_has_no_capability():
    assert Abilities.of(torch.device("cpu")) == CPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("ways", "name"),
    [
        ({}, "triton"),
        ({"deterministic": True}, "triton-deterministic"),
        ({"kernels": "reference"}, "reference"),
    ],
)
def test_triton_computes_on_a_gpu_unless_told_otherwise(ways, name):
    config = ModelConfig(path="m", model_id="m", **ways)

    assert choose_gpu_kernels(config, torch.device("cuda"), torch.bfloat16, 4096).name == name
