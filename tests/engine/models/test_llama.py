from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.model_spec import RopeSpec
from engine.models import llama
from engine.models.hyperparameters import Hyperparameters

BASE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}


def config(**changes: object) -> Hyperparameters:
    return Hyperparameters(origin=Path("config.json"), values={**BASE, **changes})


def test_a_llama_spec_has_the_configs_numbers():
    spec = llama.read_llama_spec(config(head_dim=16, tie_word_embeddings=True, eos_token_ids=[5, 6]))

    assert (spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.head_size) == (2, 4, 2, 16)
    assert (spec.model_size, spec.ffn_size, spec.vocab_size, spec.max_context) == (48, 96, 264, 512)
    assert (spec.norm_eps, spec.has_tied_head, spec.eos_ids) == (1e-5, True, (5, 6))
    assert spec.layer_windows == (None, None)


def test_what_older_configs_leave_out_has_the_formats_defaults():
    values = {key: value for key, value in BASE.items() if key not in ("num_key_value_heads", "rms_norm_eps")}

    spec = llama.read_llama_spec(Hyperparameters(origin=Path("config.json"), values=values))

    assert (spec.num_kv_heads, spec.head_size, spec.norm_eps) == (4, 12, 1e-6)
    assert (spec.has_tied_head, spec.rope) == (False, RopeSpec(theta=10_000.0))


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_SPEC = RopeSpec(
    theta=5e5,
    scaling="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_context=64,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rope_theta": 5e5}, RopeSpec(theta=5e5)),
        ({"rope_theta": 5e5, "rope_scaling": None}, RopeSpec(theta=5e5)),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            RopeSpec(theta=5e5, scaling="linear", factor=2.0),
        ),
        (
            {
                "rope_theta": 5e5,
                "rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 64, **LLAMA3},
            },
            LLAMA3_SPEC,
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, RopeSpec(theta=5e5)),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}},
            RopeSpec(theta=5e5, scaling="linear", factor=2.0),
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 5e5,
                    "original_max_position_embeddings": 64,
                    **LLAMA3,
                }
            },
            LLAMA3_SPEC,
        ),
    ],
    ids=["old", "old-null", "old-linear", "old-llama3", "new", "new-linear", "new-llama3"],
)
def test_rope_is_read_from_old_and_new_configs(values, expected):
    assert llama.read_llama_spec(config(**values)).rope == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"quant_method": "gptq"}),
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("logits_scaling", 8.0),
        ("embedding_multiplier", 12.0),
        ("num_local_experts", 8),
        ("attention_sinks", True),
        ("layer_types", ["full_attention", "sliding_attention"]),
    ],
)
def test_a_value_that_would_change_the_maths_is_refused_by_name(key, value):
    with pytest.raises(CheckpointError) as caught:
        llama.read_llama_spec(config(**{key: value}))

    assert f"{key} is {value!r}" in caught.value.message


@pytest.mark.parametrize("rope_type", ["yarn", "dynamic", "longrope", "mrope"])
def test_an_unknown_rope_type_is_refused_by_name(rope_type):
    with pytest.raises(CheckpointError, match=f"rope_type is '{rope_type}'"):
        llama.read_llama_spec(
            config(rope_parameters={"rope_type": rope_type, "rope_theta": 1e4, "factor": 2.0})
        )


def test_partial_rotation_inside_the_rope_parameters_is_refused_too():
    with pytest.raises(CheckpointError, match=r"partial_rotary_factor is 0\.25"):
        llama.read_llama_spec(config(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.25}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"num_key_value_heads": 3}, "num_key_value_heads is 3"), ({"head_dim": 15}, "head_dim is 15")],
)
def test_heads_that_cannot_be_are_refused(changes, named):
    with pytest.raises(CheckpointError, match=named):
        llama.read_llama_spec(config(**changes))


@pytest.mark.parametrize(
    ("changes", "window"),
    [({"sliding_window": 8}, 8), ({"sliding_window": None}, None), ({}, 4096)],
    ids=["stated", "null", "absent"],
)
def test_mistrals_window_is_on_every_layer(changes, window):
    assert llama.read_mistral_spec(config(**changes)).layer_windows == (window, window)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(CheckpointError, match="sliding_window is 0"):
        llama.read_mistral_spec(config(sliding_window=0))


def test_fused_projections_stack_query_key_value_and_gate_up():
    targets = llama.weight_map(llama.read_llama_spec(config(head_dim=16)))

    rows = {
        name.removeprefix("model.layers.1."): (target.parameter, target.first_row, target.num_rows)
        for name, target in targets.items()
        if "qkv" in target.parameter or "gate_up" in target.parameter
        if name.startswith("model.layers.1.")
    }
    assert rows == {
        "self_attn.q_proj.weight": ("layers.1.attention.qkv.weight", 0, 64),
        "self_attn.k_proj.weight": ("layers.1.attention.qkv.weight", 64, 32),
        "self_attn.v_proj.weight": ("layers.1.attention.qkv.weight", 96, 32),
        "mlp.gate_proj.weight": ("layers.1.mlp.gate_up.weight", 0, 96),
        "mlp.up_proj.weight": ("layers.1.mlp.gate_up.weight", 96, 96),
    }
