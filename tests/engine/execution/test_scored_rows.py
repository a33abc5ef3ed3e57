import numpy as np
import torch

from engine.execution.scored_rows import ScoredRows, to_token_scores
from engine.token_scores import NO_SCORES, TokenScores

COLUMNS = ([-0.5, -3.0], [1, 4], [[7, 8], [1, 2]], [[-0.5, -2.0], [-1.0, -1.5]])


def test_tensors_and_arrays_become_the_same_rows():
    tensors, arrays = ScoredRows(*map(torch.tensor, COLUMNS)), ScoredRows(*map(np.array, COLUMNS))

    expected = [(-0.5, 1, [7, 8], [-0.5, -2.0]), (-3.0, 4, [1, 2], [-1.0, -1.5])]
    assert tensors.to_rows() == arrays.to_rows() == expected


def test_rows_become_columns_with_as_many_alternatives_as_were_asked_for():
    rows = [(-0.5, 1, [7, 8], [-0.5, -2.0]), (-3.0, 4, [1, 2], [-1.0, -1.5])]

    assert to_token_scores(rows, 1) == TokenScores(
        logprobs=(-0.5, -3.0), ranks=(1, 4), top_ids=(7, 1), top_logprobs=(-0.5, -1.0)
    )
    assert to_token_scores([], 3) == NO_SCORES
