import pytest
import torch

from engine.errors import CheckpointError
from engine.kernels.reference import linear
from engine.kernels.rounded import round_rows
from engine.layers.rounded import RoundedLinears

CPU = torch.device("cpu")


@pytest.fixture
def factory():
    return RoundedLinears(linear, round_rows, CPU, torch.bfloat16)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def test_parts_of_a_projection_are_taken_in_any_order(factory):
    projection = factory("p", 32, (16, 32), has_bias=False)
    weight = draw(48, 32)
    projection.take(16, weight[16:])
    projection.take(0, weight[:16])
    hidden = draw(3, 32, seed=1)
    exact = hidden.float() @ weight.float().T

    found = projection(hidden)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() / exact.norm() < 0.06


def test_a_row_has_the_same_result_in_any_company(factory):
    projection = factory("p", 32, (16,), has_bias=False)
    projection.take(0, draw(16, 32))
    hidden = draw(9, 32, seed=1) * torch.arange(1, 10)[:, None]

    assert torch.equal(projection(hidden)[4:5], projection(hidden[4:5]))


def test_a_weight_takes_a_byte_and_each_row_four_more(factory):
    projection = factory("p", 64, (48,), has_bias=False)

    assert sum(buffer.nbytes for buffer in projection.buffers()) == 48 * 64 + 48 * 4


def test_a_bias_is_added(factory):
    projection = factory("p", 16, (16,), has_bias=True)
    projection.take(0, torch.zeros(16, 16))
    projection.bias.data.fill_(2.0)

    assert projection(draw(2, 16)).tolist() == [[2.0] * 16] * 2


def test_tables_of_embeddings_stay_as_they_are(factory):
    table = factory.table("embedding", 10, 16)

    assert table.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("in_size", "out_size"), [(24, 16), (16, 40)])
def test_sizes_that_matrix_units_do_not_take_are_refused(factory, in_size, out_size):
    with pytest.raises(CheckpointError, match="needs multiples of 16"):
        factory("layers.0.mlp.down", in_size, (out_size,), has_bias=False)
