import torch

from engine.models.blocks import MAKE_BLOCK, LlamaBlock
from engine.models.registry import FAMILIES
from tests.support.layer_kit import cpu_kit
from tests.support.specs import small_spec


def test_every_family_has_a_block():
    assert set(MAKE_BLOCK) == {family.name for family in FAMILIES}


def test_a_block_is_made_of_two_norms_attention_and_feed_forward():
    block = LlamaBlock(cpu_kit(torch.float64), small_spec(None, None), 1)

    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {
        "input_norm",
        "attention",
        "mlp_norm",
        "mlp",
    }
    assert {parameter.dtype for parameter in block.parameters()} == {torch.float64}
