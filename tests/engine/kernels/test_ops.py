import dataclasses

import pytest
import torch

from engine.errors import ConfigError
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.ops import REFERENCE, Ops, native_ops, select_native, select_ops
from tests.support.native import needs_native

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_reference_serves_every_floating_dtype(kernels, dtype):
    assert select_ops(CPU, dtype, kernels) is REFERENCE


def test_an_unknown_kernels_setting_is_refused_by_name():
    with pytest.raises(ConfigError, match="kernels is 'fast'; it must be one of auto, native, reference"):
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
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernels", ["auto", "native"])
def test_native_kernels_serve_a_cpu_that_has_vectors(kernels, dtype):
    native = select_native(CPU, dtype, kernels, 1)

    assert native is not None
    assert native_ops(native).attend == native.attend


def test_native_kernels_are_not_taken_where_the_reference_is_asked_for():
    assert select_native(CPU, None, "reference", 1) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_another_dtype_is_the_references(dtype):
    assert select_native(CPU, dtype, "auto", 1) is None
    with pytest.raises(ConfigError, match=f"kernels is 'native', but dtype is {dtype}"):
        select_native(CPU, dtype, "native", 1)


def test_a_float32_cache_is_the_references():
    assert select_native(CPU, None, "auto", 1, "float32") is None
    with pytest.raises(ConfigError, match="kernels is 'native', but kv_dtype is float32"):
        select_native(CPU, None, "native", 1, "float32")


def test_another_device_is_the_references():
    assert select_native(torch.device("cuda"), None, "auto", 1) is None
    with pytest.raises(ConfigError, match="the device is cuda"):
        select_native(torch.device("cuda"), None, "native", 1)


def test_kernels_that_were_not_built_are_said_once_or_refused(monkeypatch, caplog):
    monkeypatch.setattr(NativeKernels, "open", lambda _threads: None)

    assert select_native(CPU, None, "auto", 1) is None
    assert [record.message for record in caplog.records] == [
        "the reference kernels compute: the native ones were not built when ringserve was installed, "
        "which takes a C++20 compiler"
    ]
    with pytest.raises(ConfigError, match="not built"):
        select_native(CPU, None, "native", 1)
