from dataclasses import replace

import torch

from engine.batch import Batch


def test_a_batch_counts_its_chunks():
    empty = torch.zeros(0, dtype=torch.int64)
    batch = Batch(
        token_ids=empty,
        positions=empty,
        wanted_rows=empty,
        row_starts=(0, 4, 5),
        row_bounds=torch.tensor([0, 4, 5]),
        starts=(2, 9),
        groups=(),
    )

    assert batch.num_chunks == 2
    assert not batch.is_standing
    assert replace(batch, starts=()).is_standing
