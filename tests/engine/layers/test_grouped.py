import pytest
import torch

from engine.kernels.cpu.packed import StoredRows
from engine.kernels.ops import REFERENCE
from engine.kernels.reference import linear
from engine.layers.grouped import GroupedLinears
from engine.layers.kit import LayerKit
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from engine.quantization.groups import INT4, INT8
from engine.quantization.source import quantizing
from tests.support.layer_kit import cpu_kit
from tests.support.tiny_model import write_tiny_checkpoint

CPU = torch.device("cpu")
FORMATS = {"int8": INT8, "int4": INT4}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(name, weight, *, as_name="p", has_bias=False):
    """A projection that holds `weight`, and what its codes stand for."""
    projection = GroupedLinears(linear, name, CPU, torch.float32)(
        as_name, weight.shape[1], (len(weight),), has_bias=has_bias
    )
    layout = INT8 if as_name == "lm_head" else FORMATS[name]
    groups = layout.quantise(weight)
    projection.pack(0, StoredRows(type_name=layout.type_name, stored=groups.blocks().numpy(), row_order=None))
    return projection, groups.values()


@pytest.mark.parametrize("name", FORMATS)
def test_the_product_is_that_of_what_the_codes_stand_for(name):
    projection, values = packed(name, draw(24, 96))
    hidden = draw(5, 96, seed=1)

    torch.testing.assert_close(projection(hidden), hidden @ values.T, atol=0.03, rtol=0.01)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_looked_up(name):
    projection, values = packed(name, draw(24, 64))
    ids = torch.tensor([3, 23, 3])

    torch.testing.assert_close(projection.look_up(ids), values[ids], atol=3e-3, rtol=1e-3)


def test_a_head_is_held_in_8_bits_in_either_format():
    projection, values = packed("int4", draw(16, 32), as_name="lm_head")

    torch.testing.assert_close(projection(torch.eye(32)), values.T, atol=3e-3, rtol=1e-3)


@pytest.mark.parametrize(("name", "bits"), [("int8", 8.5), ("int4", 5.0)])
def test_a_weight_takes_as_many_bits_as_are_said(name, bits):
    projection, _ = packed(name, draw(48, 128))

    assert sum(buffer.nbytes for buffer in projection.buffers()) == 48 * 128 * bits / 8


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_is_held_as_the_codes_that_the_reference_computes_with(tmp_path, name):
    folder = write_tiny_checkpoint(tmp_path, "qwen2", with_tokenizer=False, hidden_size=64)
    through = quantizing(name, folder)
    kit = LayerKit.grouped(REFERENCE, name, CPU, torch.float32)
    held = load_decoder(folder, read_spec(folder), kit, lambda _done, _total: None, through)
    plain = load_decoder(folder, read_spec(folder), cpu_kit(), lambda _done, _total: None, through)
    hidden = draw(3, 64)

    assert held.weight_bytes < 0.45 * plain.weight_bytes
    for own, other in (
        (held.layers[1].attention.qkv, plain.layers[1].attention.qkv),
        (held.layers[0].mlp.gate_up, plain.layers[0].mlp.gate_up),
        (held.lm_head, plain.lm_head),
    ):
        torch.testing.assert_close(own(hidden), other(hidden), atol=0.03, rtol=0.01)
