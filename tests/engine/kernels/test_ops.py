import dataclasses
import importlib.util
import subprocess
import sys

import pytest
import torch

from engine.errors import ConfigError
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.ops import REFERENCE, Ops, native_ops, select_ops
from tests.support import triton_device  # noqa: F401  tells triton how to run before anything imports it
from tests.support.native import needs_native

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_reference_serves_every_floating_dtype(kernels, dtype):
    assert select_ops(CPU, dtype, kernels) is REFERENCE


def test_an_unknown_kernels_setting_is_refused_by_name():
    with pytest.raises(
        ConfigError, match="kernels is 'fast'; it must be one of auto, native, reference, triton"
    ):
        select_ops(CPU, torch.float32, "fast")


def test_a_dtype_that_is_no_floating_point_is_refused():
    with pytest.raises(ConfigError, match=r"torch\.int8"):
        select_ops(CPU, torch.int8, "auto")


def test_an_operation_can_be_replaced_alone_but_not_in_place():
    def double(gate_up: torch.Tensor) -> torch.Tensor:
        return 2 * REFERENCE.silu_mul(gate_up)

    mixed = dataclasses.replace(REFERENCE, silu_mul=double)

    assert isinstance(mixed, Ops)
    assert mixed.linear is REFERENCE.linear
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixed.silu_mul = REFERENCE.silu_mul  # type: ignore[misc]


@needs_native
def test_native_operations_are_those_of_their_kernels():
    native = NativeKernels.open(1)

    assert native_ops(native).attend == native.attend


@pytest.fixture
def capability(monkeypatch):
    """Sets what the GPU tells of itself; there need not be one."""

    def tell(major, minor):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (major, minor))

    tell(9, 0)
    return tell


@pytest.mark.parametrize("kernels", ["auto", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_gpu_computes_with_tritons_kernels(capability, kernels, dtype):
    ops = select_ops(GPU, dtype, kernels)

    assert ops.attend.__self__ is ops.rotate_and_write.__self__
    assert type(ops.attend.__self__).__name__ == "TritonKernels"
    assert ops.linear is REFERENCE.linear


def test_the_reference_computes_on_a_gpu_where_it_is_asked_for(capability, caplog):
    assert select_ops(GPU, torch.bfloat16, "reference") is REFERENCE
    assert caplog.records == []


def test_a_gpu_without_bfloat16_units_is_the_references_and_that_is_said(capability, caplog):
    capability(7, 5)

    assert select_ops(GPU, torch.float16, "auto") is REFERENCE
    assert [record.message for record in caplog.records] == [
        "the reference kernels compute: the GPU has compute capability 7.5 and they need 8.0"
    ]


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        (CPU, torch.float32, "the device is cpu and they compute on a GPU; use --kernels auto"),
        (GPU, torch.float64, "dtype is torch.float64 and they compute in float32, bfloat16 and float16"),
        (GPU, torch.bfloat16, "the GPU has compute capability 7.0 and they need 8.0"),
    ],
    ids=["device", "dtype", "capability"],
)
def test_tritons_kernels_are_refused_with_the_reason(capability, device, dtype, reason):
    capability(7, 0)

    with pytest.raises(ConfigError, match=f"kernels is 'triton', but {reason}"):
        select_ops(device, dtype, "triton")


def test_tritons_kernels_need_triton(capability, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ConfigError, match="triton is not installed, which torch for CUDA brings along"):
        select_ops(GPU, torch.bfloat16, "triton")


def test_a_deterministic_gpu_multiplies_with_a_kernel_of_its_own(capability):
    ops = select_ops(GPU, torch.bfloat16, "auto", is_deterministic=True)

    assert ops.linear.__name__ == "invariant_linear"


def test_choosing_operations_for_a_cpu_does_not_import_triton():
    code = (
        "import sys, torch; from engine.kernels.ops import select_ops; "
        "select_ops(torch.device('cpu'), torch.float32, 'auto'); print('triton' in sys.modules)"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"
