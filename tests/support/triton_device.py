"""Where the Triton kernels run in tests: on a GPU where there is one, in Triton's interpreter elsewhere.

The interpreter is asked for by TRITON_INTERPRET, which triton reads when it is imported and when a kernel is
defined, so this module comes before any of those.
"""

import os
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.kernels import reference
from tests.support.attention_oracle import PagedCase

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device, the dtype that it is tested in, and how far results may be off."""

    device: torch.device
    dtype: torch.dtype
    tolerance: float

    def close(self, found: Tensor, expected: Tensor) -> None:
        """Fail unless `found` is near `expected`, whatever dtypes and devices they have."""
        torch.testing.assert_close(
            found.cpu().double(), expected.cpu().double(), atol=self.tolerance, rtol=self.tolerance
        )


INTERPRETED = Place(device=CPU, dtype=torch.float32, tolerance=1e-5)
ON_GPU = Place(device=torch.device("cuda"), dtype=torch.bfloat16, tolerance=3e-2)
PLACES = [
    pytest.param(INTERPRETED, id="interpreted"),
    pytest.param(ON_GPU, id="gpu", marks=pytest.mark.gpu),
]


def skip_elsewhere(place: Place) -> None:
    """A process interprets its kernels or compiles them: skip what it does not."""
    if (place.device.type == "cpu") != IS_INTERPRETED:
        pytest.skip("needs a CUDA device" if IS_INTERPRETED else "the kernels are compiled for the GPU here")


def placed_batch(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors on `device`."""
    groups = tuple(
        replace(
            group,
            slots=group.slots.to(device),
            tables=group.tables.to(device),
            base_positions=group.base_positions.to(device),
        )
        for group in batch.groups
    )
    return replace(
        batch,
        token_ids=batch.token_ids.to(device),
        positions=batch.positions.to(device),
        wanted_rows=batch.wanted_rows.to(device),
        row_bounds=batch.row_bounds.to(device),
        groups=groups,
    )


def placed(case: PagedCase, device: torch.device) -> PagedCase:
    """The case's tensors that an operation takes, on `device`."""
    cache = LayerCache(
        group=case.cache.group, keys=case.cache.keys.to(device), values=case.cache.values.to(device)
    )
    return replace(case, query=case.query.to(device), cache=cache, batch=placed_batch(case.batch, device))


def wide_attention(case: PagedCase, window: int | None) -> Tensor:
    """What the reference makes of the case in float64, [T, H · D]."""
    angles = torch.ones(len(case.query), case.query.shape[-1] // 2, dtype=torch.float64)
    cache = LayerCache(
        group=case.cache.group, keys=case.cache.keys.double(), values=case.cache.values.double()
    )
    return reference.attend(case.query.double(), cache, reference.prepare(case.batch, angles, angles), window)
