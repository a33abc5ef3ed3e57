import dataclasses

import pytest
import torch

from engine.kernels.ops import REFERENCE
from engine.layers.attention import Attention
from engine.layers.linear import Linear
from engine.model_spec import ModelSpec, RopeSpec
from tests.support.attention_oracle import paged_case
from tests.support.layer_kit import cpu_kit, fill

SPEC = ModelSpec(
    family="llama",
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_size=8,
    model_size=24,
    ffn_size=32,
    vocab_size=16,
    max_context=64,
    norm_eps=1e-6,
    rope=RopeSpec(theta=10_000.0),
    layer_windows=(None,),
    eos_ids=(),
)


def run(attention: Attention, hidden: torch.Tensor) -> torch.Tensor:
    """One chunk from position 0 on, through tables that reach back to the start."""
    case = paged_case([(0, len(hidden))], None)
    angles = torch.zeros(len(hidden), SPEC.head_size // 2)
    prepared = REFERENCE.prepare(case.batch, angles + 1, angles)
    return attention(hidden, case.cache, prepared)


@pytest.mark.parametrize(("window", "is_moved"), [(None, True), (3, False), (4, True)])
def test_a_layer_looks_back_as_far_as_its_own_window(window, is_moved):
    attention = Attention(cpu_kit(), "layers.0.attention", SPEC, window)
    fill(attention)
    hidden = torch.randn(4, SPEC.model_size)
    changed = torch.cat((hidden[:1] + 1, hidden[1:]))

    moved = (run(attention, hidden)[-1] - run(attention, changed)[-1]).abs().max()

    assert bool(moved > 1e-6) == is_moved


def test_both_projections_are_made_by_the_factory_under_their_names():
    kit, made = cpu_kit(), []

    def recorded(name: str, in_size: int, out_sizes: tuple[int, ...], *, has_bias: bool) -> Linear:
        made.append((name, in_size, out_sizes, has_bias))
        return kit.linears(name, in_size, out_sizes, has_bias=has_bias)

    spec = dataclasses.replace(SPEC, has_qkv_bias=True)
    Attention(dataclasses.replace(kit, linears=recorded), "layers.3.attention", spec, None)

    assert made == [
        ("layers.3.attention.qkv", 24, (32, 16, 16), True),
        ("layers.3.attention.output", 32, (24,), False),
    ]


def test_query_and_key_norms_are_there_only_when_the_family_has_them():
    plain = Attention(cpu_kit(), "a", SPEC, None)
    normed = Attention(cpu_kit(), "a", dataclasses.replace(SPEC, has_qk_norm=True), None)

    assert set(dict(normed.named_parameters())) - set(dict(plain.named_parameters())) == {
        "query_norm.weight",
        "key_norm.weight",
    }


def test_normed_queries_and_keys_do_not_depend_on_the_size_of_the_projection():
    attention = Attention(cpu_kit(), "a", dataclasses.replace(SPEC, has_qk_norm=True), None)
    fill(attention)
    hidden = torch.randn(5, SPEC.model_size)
    before = run(attention, hidden)

    weight = dict(attention.named_parameters())["qkv.weight"]
    weight[: (SPEC.num_heads + SPEC.num_kv_heads) * SPEC.head_size] *= 10

    torch.testing.assert_close(run(attention, hidden), before, atol=1e-5, rtol=1e-5)
