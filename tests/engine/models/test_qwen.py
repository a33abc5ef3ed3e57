from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.models import qwen
from engine.models.hyperparameters import Hyperparameters
from tests.engine.models.test_llama import BASE

WINDOWED = {"use_sliding_window": True, "sliding_window": 8}


def config(**changes: object) -> Hyperparameters:
    return Hyperparameters(origin=Path("config.json"), values={**BASE, "num_hidden_layers": 4, **changes})


def test_qwen2_has_biases_and_qwen3_has_norms():
    qwen2, qwen3 = qwen.read_qwen2_spec(config()), qwen.read_qwen3_spec(config())

    assert (qwen2.family, qwen2.has_qkv_bias, qwen2.has_qk_norm) == ("qwen2", True, False)
    assert (qwen3.family, qwen3.has_qkv_bias, qwen3.has_qk_norm) == ("qwen3", False, True)


def test_qwen3s_head_size_is_its_own():
    assert qwen.read_qwen3_spec(config(head_dim=32)).head_size == 32
    assert qwen.read_qwen3_spec(config()).head_size == 128
    assert qwen.read_qwen2_spec(config()).head_size == 12


@pytest.mark.parametrize(
    ("values", "windows"),
    [
        ({"sliding_window": 8, "max_window_layers": 1}, (None,) * 4),
        ({"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 1}, (None,) * 4),
        ({**WINDOWED, "max_window_layers": 1}, (None, 8, 8, 8)),
        ({**WINDOWED, "max_window_layers": 0}, (8,) * 4),
        ({**WINDOWED, "max_window_layers": 28}, (None,) * 4),
        (
            {**WINDOWED, "max_window_layers": 1, "layer_types": ["sliding_attention", "full_attention"] * 2},
            (8, None, 8, None),
        ),
    ],
    ids=["off by default", "off", "from the second layer", "all", "none so deep", "by layer types"],
)
@pytest.mark.parametrize("read", [qwen.read_qwen2_spec, qwen.read_qwen3_spec])
def test_each_layer_has_the_window_that_its_config_gives_it(read, values, windows):
    assert read(config(**values)).layer_windows == windows


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 4}, "use_sliding_window"),
        ({**WINDOWED}, "max_window_layers"),
        ({"use_sliding_window": True, "sliding_window": 0, "max_window_layers": 1}, "sliding_window is 0"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "type is 'yarn'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(values, named):
    with pytest.raises(CheckpointError, match=named):
        qwen.read_qwen3_spec(config(**values))


def test_biases_go_where_their_projections_went():
    targets = qwen.qwen2_weight_map(qwen.read_qwen2_spec(config()))

    for part in "qkv":
        name = f"model.layers.3.self_attn.{part}_proj"
        weight, bias = targets[f"{name}.weight"], targets[f"{name}.bias"]
        assert (bias.first_row, bias.num_rows) == (weight.first_row, weight.num_rows)
        assert bias.parameter == "layers.3.attention.qkv.bias"


def test_the_norms_of_queries_and_keys_have_a_place():
    targets = qwen.qwen3_weight_map(qwen.read_qwen3_spec(config()))

    assert (
        targets["model.layers.3.self_attn.q_norm.weight"].parameter == "layers.3.attention.query_norm.weight"
    )
    assert targets["model.layers.3.self_attn.k_norm.weight"].parameter == "layers.3.attention.key_norm.weight"
