import gguf
import numpy as np
import torch

from engine.kernels.cpu.packed import StoredRows
from engine.layers.packed import PackedLinears
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.tiny_model import random_blocks

pytestmark = needs_native


def stored(shape, seed):
    blocks = random_blocks(np.random.default_rng(seed), shape, "Q8_0")
    weight = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0))
    return weight, StoredRows(type_name="Q8_0", stored=blocks, row_order=None)


def test_tensors_of_one_input_are_computed_as_one_projection():
    linears = PackedLinears(native_kernels(LEVELS[-1]))
    (first, first_rows), (second, second_rows) = stored((40, 64), 0), stored((24, 64), 1)
    projection = linears("qkv", 64, (40, 24), has_bias=True)
    torch.nn.init.normal_(projection.bias)

    projection.pack(40, second_rows)
    projection.pack(0, first_rows)

    hidden = torch.randn(3, 64)
    expected = hidden @ torch.cat((first, second)).T + projection.bias
    torch.testing.assert_close(projection(hidden), expected, atol=1e-2, rtol=1e-2)


def test_a_table_is_its_own_head():
    linears = PackedLinears(native_kernels(LEVELS[-1]))
    weight, rows = stored((33, 64), 0)
    table = linears.table("embedding", 33, 64)
    table.pack(0, rows)

    hidden = table.look_up(torch.tensor([32, 5]))

    assert torch.equal(hidden, weight[[32, 5]])
    torch.testing.assert_close(table(hidden), hidden @ weight.T, atol=1e-2, rtol=1e-2)


def test_weights_are_counted_as_the_module_holds_them():
    linears = PackedLinears(native_kernels(LEVELS[-1]))
    weight, rows = stored((64, 64), 0)
    projection = linears("output", 64, (64,), has_bias=False)
    projection.pack(0, rows)

    exponents = 4 * len(rows.stored)
    assert (
        sum(buffer.nbytes for buffer in projection.buffers())
        == rows.stored.nbytes + exponents
        < weight.nbytes
    )
