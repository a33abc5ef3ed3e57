import pytest
import torch

from engine.config import CacheConfig, ModelConfig
from engine.errors import ConfigError
from engine.execution.gpu_kernels import choose_gpu_kernels, refuse_impossible
from engine.execution.plain_draw import DrawColumns, DrawKind, draw_plainly
from engine.layers.grouped import GroupedLinears
from engine.layers.linear import DenseLinears
from engine.layers.rounded import RoundedLinears
from tests.support import triton_device  # noqa: F401  tells triton how to run before anything imports it

AMPERE, ADA, HOPPER = (8, 0), (8, 9), (9, 0)
GPU = torch.device("cuda")


def check(capability, *, dtype=torch.bfloat16, kv_dtype="auto", **model):
    config = ModelConfig(path="m", model_id="m", **model)
    refuse_impossible(config, CacheConfig(kv_dtype=kv_dtype), capability, dtype)


@pytest.mark.parametrize(
    ("capability", "ways"),
    [
        (AMPERE, {"deterministic": True}),
        (AMPERE, {"kv_dtype": "int8"}),
        (ADA, {"quantization": "fp8", "kv_dtype": "fp8"}),
        (HOPPER, {"quantization": "fp8"}),
        (HOPPER, {"deterministic": True, "kv_dtype": "fp8"}),
    ],
    ids=str,
)
def test_what_can_be_had_is_let_through(capability, ways):
    check(capability, **ways)


@pytest.mark.parametrize(
    ("capability", "ways", "message"),
    [
        (AMPERE, {"quantization": "fp8"}, "has compute capability 8.0; 8.9"),
        (AMPERE, {"kv_dtype": "fp8"}, "take int8"),
        (HOPPER, {"quantization": "fp8", "dtype": torch.float16}, "dtype float16; .* take --dtype bfloat16"),
        (HOPPER, {"deterministic": True, "quantization": "fp8"}, "take one of the two"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_refused_with_what_can(capability, ways, message):
    with pytest.raises(ConfigError, match=message):
        check(capability, **ways)


@pytest.fixture
def hopper(monkeypatch):
    """What a GPU tells of itself, though there need not be one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: HOPPER)


@pytest.mark.parametrize(
    ("ways", "name"),
    [
        ({}, "triton"),
        ({"deterministic": True}, "triton-deterministic"),
        ({"kernels": "reference"}, "reference"),
    ],
)
def test_triton_computes_on_a_gpu_unless_told_otherwise(hopper, ways, name):
    kernels = choose_gpu_kernels(ModelConfig(path="m", model_id="m", **ways), GPU, torch.bfloat16, 4096)

    assert kernels.name == name
    assert isinstance(kernels.kit.linears, DenseLinears)


def test_with_fp8_projections_are_rounded(hopper):
    config = ModelConfig(path="m", model_id="m", quantization="fp8")

    assert isinstance(choose_gpu_kernels(config, GPU, torch.bfloat16, 4096).kit.linears, RoundedLinears)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_with_int8_and_int4_projections_hold_codes(hopper, name):
    config = ModelConfig(path="m", model_id="m", quantization=name)

    assert isinstance(choose_gpu_kernels(config, GPU, torch.bfloat16, 4096).kit.linears, GroupedLinears)


def test_the_reference_is_not_deterministic_on_a_gpu(hopper):
    config = ModelConfig(path="m", model_id="m", deterministic=True, kernels="reference")

    with pytest.raises(ConfigError, match="take --kernels triton"):
        choose_gpu_kernels(config, GPU, torch.bfloat16, 4096)


def test_draws_on_a_gpu_are_those_of_the_host(hopper):
    draw = choose_gpu_kernels(ModelConfig(path="m", model_id="m"), GPU, torch.bfloat16, 4096).draw
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))

    def real(value):
        return torch.full((6,), value, dtype=torch.float64)

    columns = DrawColumns(
        uniforms=torch.linspace(0.05, 0.95, 6, dtype=torch.float64),
        temperature=real(0.9),
        top_k=torch.full((6,), 40),
        top_p=real(0.8),
        min_p=real(0.01),
    )
    for kind in (DrawKind.GREEDY, DrawKind.TRUNCATED):
        assert torch.equal(draw(kind, logits, columns), draw_plainly(kind, logits, columns))
