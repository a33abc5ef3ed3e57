import pytest
import torch

from engine.errors import EngineCrashedError
from engine.execution.device_errors import device_errors


def test_an_error_of_the_device_ends_the_process():
    with pytest.raises(EngineCrashedError, match="the device failed"), device_errors():
        raise torch.AcceleratorError("gone")


def test_another_error_is_let_through_as_it_is():
    with pytest.raises(ValueError, match="odd"), device_errors():
        raise ValueError("odd")
