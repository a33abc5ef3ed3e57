"""Qwen2 and Qwen3: Llama with biases on query, key and value, or with normed queries and keys.

Both may give a window to some layers and not to others.
Sources: Yang et al. 2024, Qwen2 (arXiv 2407.10671); Yang et al. 2025, Qwen3 (arXiv 2505.09388).
"""

from dataclasses import replace

from engine.model_spec import ModelSpec
from engine.models import llama
from engine.models.hyperparameters import Hyperparameters
from engine.models.llama import WeightTarget

QWEN3_HEAD_SIZE = 128  # what the format means by an absent head_dim


def read_qwen2_spec(config: Hyperparameters) -> ModelSpec:
    """A Qwen2 checkpoint's numbers."""
    spec = llama.read_common_spec(config, "qwen2", _read_windows(config))
    return replace(spec, has_qkv_bias=True)


def read_qwen3_spec(config: Hyperparameters) -> ModelSpec:
    """A Qwen3 checkpoint's numbers; its head size is its own, not the quotient of two others."""
    if not config.has("head_dim"):
        config = replace(config, values={**config.values, "head_dim": QWEN3_HEAD_SIZE})
    spec = llama.read_common_spec(config, "qwen3", _read_windows(config))
    return replace(spec, has_qk_norm=True)


def qwen2_weight_map(spec: ModelSpec) -> dict[str, WeightTarget]:
    """Llama's weights, and the biases of query, key and value."""
    targets = llama.weight_map(spec)
    for layer in range(spec.num_layers):
        parameter, rows = f"layers.{layer}.attention.qkv.bias", llama.qkv_rows(spec, "bias")
        targets |= llama.stacked(parameter, f"model.layers.{layer}", rows)
    return targets


def qwen3_weight_map(spec: ModelSpec) -> dict[str, WeightTarget]:
    """Llama's weights, and the norms of queries and keys, each shared by a layer's heads."""
    targets = llama.weight_map(spec)
    for layer in range(spec.num_layers):
        for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            targets[f"model.layers.{layer}.self_attn.{theirs}.weight"] = WeightTarget(
                parameter=f"layers.{layer}.attention.{ours}.weight", first_row=0, num_rows=spec.head_size
            )
    return targets


def _read_windows(config: Hyperparameters) -> tuple[int | None, ...]:
    """`layer_types` decide; older configs state the first windowed layer as `max_window_layers`."""
    num_layers = config.integer("num_hidden_layers")
    types = config.texts("layer_types")
    if types and len(types) != num_layers:
        raise config.error("layer_types", f"it must have one entry for each of the {num_layers} layers")
    if set(types) - {"full_attention", "sliding_attention"}:
        raise config.error("layer_types", "only full_attention and sliding_attention are supported")
    if not config.flag("use_sliding_window", False):
        if "sliding_attention" in types:
            raise config.error("layer_types", "it has windowed layers while use_sliding_window is not true")
        return (None,) * num_layers
    window = config.integer("sliding_window", 4096)
    if types:
        return tuple(window if kind == "sliding_attention" else None for kind in types)
    first_windowed = config.values.get("max_window_layers")
    if not isinstance(first_windowed, int) or isinstance(first_windowed, bool) or first_windowed < 0:
        raise config.error("max_window_layers", "it must be the number of layers without a window")
    return tuple(window if layer >= first_windowed else None for layer in range(num_layers))
