import pickle

import pytest

from engine.model_spec import ModelSpec, RopeSpec


def spec(*windows: int | None) -> ModelSpec:
    return ModelSpec(
        family="llama",
        num_layers=len(windows),
        num_heads=4,
        num_kv_heads=2,
        head_size=8,
        model_size=32,
        ffn_size=64,
        vocab_size=264,
        max_context=128,
        norm_eps=1e-5,
        rope=RopeSpec(theta=10_000.0),
        layer_windows=windows,
        eos_ids=(257,),
    )


@pytest.mark.parametrize(
    ("own", "imposed", "windows"),
    [
        ((None, None), 8, (8, 8)),
        ((16, None), 8, (8, 8)),
        ((4, None), 8, (4, 8)),
        ((8, 16), 8, (8, 8)),
        ((4, None), None, (4, None)),
    ],
    ids=["full attention", "wider", "narrower stays", "equal", "none imposed"],
)
def test_an_imposed_window_narrows_every_layer(
    own: tuple[int | None, ...], imposed: int | None, windows: tuple[int | None, ...]
):
    assert spec(*own).with_window(imposed).layer_windows == windows


def test_imposing_a_window_changes_nothing_else():
    before = spec(None, None)

    assert before.with_window(8) == spec(8, 8)
    assert before.layer_windows == (None, None)


def test_a_spec_survives_pickling_and_compares_equal():
    assert pickle.loads(pickle.dumps(spec(4, None))) == spec(4, None)
