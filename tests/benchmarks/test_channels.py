import pytest
import torch

from benchmarks.channels import permute_channels
from tests.support.tiny_model import oracle_logits, oracle_model, write_tiny_checkpoint

IDS = list(range(40, 60))


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_another_order_of_channels_changes_weights_and_no_result(tmp_path, is_tied):
    model = oracle_model(write_tiny_checkpoint(tmp_path, "llama", is_tied=is_tied, with_tokenizer=False))
    before = oracle_logits(model, IDS)
    weights = {name: tensor.clone() for name, tensor in model.named_parameters()}

    permute_channels(model, seed=3)

    torch.testing.assert_close(oracle_logits(model, IDS), before, atol=1e-4, rtol=1e-4)
    matrices = [name for name, tensor in weights.items() if tensor.dim() == 2]
    assert not any(torch.equal(weights[name], model.get_parameter(name)) for name in matrices)
