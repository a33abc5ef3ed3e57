import torch

from engine.execution.scoring import score

LOGITS = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.5, 0.0, 5.0, 4.0]])


def test_a_token_has_the_log_softmax_of_its_row():
    found = score(LOGITS, torch.tensor([2, 0]), 0)

    assert torch.allclose(found.logprobs, LOGITS.log_softmax(-1)[[0, 1], [2, 0]])
    assert found.top_ids.shape == (2, 0)


def test_a_rank_counts_the_more_probable_tokens():
    assert score(LOGITS, torch.tensor([1, 1]), 0).ranks.tolist() == [1, 4]


def test_alternatives_descend():
    found = score(LOGITS, torch.tensor([0, 0]), 3)

    assert found.top_ids.tolist() == [[1, 2, 0], [2, 3, 0]]
    assert torch.allclose(found.top_logprobs, LOGITS.log_softmax(-1).sort(-1, descending=True).values[:, :3])


def test_the_most_probable_token_has_the_very_float_of_the_first_alternative():
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0))
    found = score(logits, logits.argmax(-1), 1)

    assert torch.equal(found.logprobs, found.top_logprobs[:, 0])


def test_there_are_no_more_alternatives_than_tokens():
    assert score(LOGITS, torch.tensor([0, 0]), 9).top_ids.shape == (2, 4)
