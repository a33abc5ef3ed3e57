"""The place where this folder's kernels run, chosen before any of them is imported."""

import pytest

from tests.support.triton_device import PLACES, Place, skip_elsewhere


@pytest.fixture(params=PLACES)
def place(request) -> Place:
    """Each test runs in the interpreter and, by marker, on a GPU."""
    skip_elsewhere(request.param)
    return request.param
