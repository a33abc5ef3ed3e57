import dataclasses

import pytest
import torch

from engine.errors import ConfigError
from engine.kernels.ops import REFERENCE, Ops, select_ops

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_reference_serves_every_floating_dtype(kernels, dtype):
    assert select_ops(CPU, dtype, kernels) is REFERENCE


def test_an_unknown_kernels_setting_is_refused_by_name():
    with pytest.raises(ConfigError, match="kernels is 'fast'; it must be one of auto, reference"):
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
