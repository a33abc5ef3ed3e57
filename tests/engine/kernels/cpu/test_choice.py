import pytest

from engine.errors import ConfigError
from engine.kernels.cpu.choice import choose_native
from engine.kernels.cpu.context import KernelContext
from tests.support.native import needs_native


@needs_native
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("kernels", ["auto", "native"])
def test_native_kernels_serve_a_cpu_that_has_vectors(kernels, dtype):
    native = choose_native("cpu", dtype, kernels, 1)

    assert native is not None
    assert native.is_vectorised


def test_native_kernels_are_not_taken_where_the_reference_is_asked_for():
    assert choose_native("cpu", "auto", "reference", 1) is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_another_dtype_is_the_references(dtype):
    assert choose_native("cpu", dtype, "auto", 1) is None
    with pytest.raises(ConfigError, match=f"kernels is 'native', but dtype is {dtype}"):
        choose_native("cpu", dtype, "native", 1)


def test_a_float32_cache_is_the_references():
    assert choose_native("cpu", "auto", "auto", 1, "float32") is None
    with pytest.raises(ConfigError, match="kernels is 'native', but kv_dtype is float32"):
        choose_native("cpu", "auto", "native", 1, "float32")


def test_another_device_is_the_references():
    assert choose_native("cuda", "auto", "auto", 1) is None
    with pytest.raises(ConfigError, match="the device is cuda"):
        choose_native("cuda", "auto", "native", 1)


def test_kernels_that_were_not_built_are_said_once_or_refused(monkeypatch, caplog):
    monkeypatch.setattr(KernelContext, "open", lambda _threads: None)

    assert choose_native("cpu", "auto", "auto", 1) is None
    assert [record.message for record in caplog.records] == [
        "the reference kernels compute: the native ones were not built when ringserve was installed, "
        "which takes a C++20 compiler"
    ]
    with pytest.raises(ConfigError, match="not built"):
        choose_native("cpu", "auto", "native", 1)


def test_native_kernels_are_not_taken_where_tritons_are_asked_for():
    assert choose_native("cpu", "auto", "triton", 1) is None
