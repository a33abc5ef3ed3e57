import pytest
import torch

from engine.config import CacheConfig, EngineConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.torch_back_end import TorchBackEnd, name_of
from engine.models.registry import read_spec
from engine.models.weights import as_it_is
from engine.structured.mask import MaskTable
from tests.support.tiny_model import write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=8)


def back_end(path, cache=None, **model):
    config = EngineConfig(
        model=ModelConfig(path=str(path), model_id="tiny", device="cpu", **model),
        cache=CacheConfig(**{"kv_cache_bytes": 1 << 20, **(cache or {})}),
    )
    threads = torch.get_num_threads()
    return TorchBackEnd(config, read_spec(path), num_threads=threads, through=as_it_is)


def test_it_says_what_computes(checkpoint):
    own = back_end(checkpoint, dtype="float32", cache={"kv_dtype": "int8"})

    assert (own.device, own.device_name, own.dtype, own.cache_dtype) == ("cpu", "cpu", "float32", "int8")
    assert own.kernels == "reference"


def test_reading_weights_is_told_up_to_the_last_byte(checkpoint):
    told = []

    placed = back_end(checkpoint).place(
        MaskTable(), lambda stage: lambda done, total: told.append((stage, done, total))
    )

    assert {stage for stage, _, _ in told} == {"weights"}
    assert told[-1][1] == told[-1][2] > 0
    assert placed.weight_bytes <= (checkpoint / "model.safetensors").stat().st_size


@pytest.mark.parametrize("ways", [{"quantization": "fp8"}, {"deterministic": True}], ids=str)
def test_what_a_cpu_cannot_serve_is_refused(checkpoint, ways):
    with pytest.raises(ConfigError, match=r"on a CPU|--kernels reference"):
        back_end(checkpoint, **ways)


def test_dtypes_are_named_as_operators_name_them():
    assert name_of(torch.bfloat16) == "bfloat16"
