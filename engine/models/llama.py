"""Llama and Mistral: how their checkpoints state a `ModelSpec`, and their weights' names.

Mistral differs by its sliding window alone. The other families of this lineage build on what is
here and state their own differences.
Sources: Touvron et al. 2023 (arXiv 2307.09288); Jiang et al. 2023, Mistral 7B (arXiv 2310.06825).
"""

from dataclasses import dataclass

from engine.model_spec import ModelSpec, RopeSpec
from engine.models.hyperparameters import Hyperparameters

# Settings that change the result, and the values of each that leave it as it is computed here.
NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
    "position_embedding_type": ("rope",),
    "quantization_config": (),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "embedding_multiplier": (1.0,),
    "residual_multiplier": (1.0,),
    "logits_scaling": (1.0,),
    "logit_scale": (1.0,),
    "scale_emb": (1.0,),
    "clip_qkv": (),
    "attention_sinks": (False, 0),
    "num_attention_sinks": (0,),
    "no_rope_layers": (),
    "num_local_experts": (0,),
    "num_experts": (0,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTarget:
    """Where a checkpoint's tensor goes: `num_rows` rows of a parameter from `first_row` on."""

    parameter: str
    first_row: int
    num_rows: int


def read_llama_spec(config: Hyperparameters) -> ModelSpec:
    """A Llama checkpoint's numbers; every layer sees everything."""
    windows = (None,) * config.integer("num_hidden_layers")
    check_layer_types(config, windows)
    return read_common_spec(config, "llama", windows)


def read_mistral_spec(config: Hyperparameters) -> ModelSpec:
    """A Mistral checkpoint's numbers: one window on all layers, 4096 unless stated, null for none."""
    window: int | None = None
    if config.has("sliding_window") or "sliding_window" not in config.values:
        window = config.integer("sliding_window", 4096)
    windows = (window,) * config.integer("num_hidden_layers")
    check_layer_types(config, windows)
    return read_common_spec(config, "mistral", windows)


def read_common_spec(config: Hyperparameters, family: str, windows: tuple[int | None, ...]) -> ModelSpec:
    """What all families of the lineage state in the same words. CheckpointError for what is unsupported."""
    for key, neutral in NEUTRAL_VALUES.items():
        if config.has(key) and config.values[key] not in neutral:
            allowed = " or ".join(repr(value) for value in neutral) or "absent"
            raise config.error(key, f"only {allowed} is supported")
    num_heads = config.integer("num_attention_heads")
    num_kv_heads = config.integer("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads != 0:
        raise config.error("num_key_value_heads", f"it must divide num_attention_heads, {num_heads}")
    model_size = config.integer("hidden_size")
    head_size = config.integer("head_dim", max(1, model_size // num_heads))
    if head_size % 2 != 0:
        raise config.error("head_dim", f"a head size of {head_size} cannot be rotated in pairs")
    return ModelSpec(
        family=family,
        num_layers=len(windows),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=head_size,
        model_size=model_size,
        ffn_size=config.integer("intermediate_size"),
        vocab_size=config.integer("vocab_size"),
        max_context=config.integer("max_position_embeddings"),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rope=_read_rope(config),
        layer_windows=windows,
        eos_ids=config.token_ids("eos_token_ids"),
        has_tied_head=config.flag("tie_word_embeddings", False),
    )


def check_layer_types(config: Hyperparameters, windows: tuple[int | None, ...]) -> None:
    """Refuse a checkpoint whose `layer_types`, if any, are not the windows its family computes with."""
    types = config.texts("layer_types")
    expected = tuple("full_attention" if window is None else "sliding_attention" for window in windows)
    if types and types != expected:
        raise config.error("layer_types", "that is not supported for this family")


def weight_map(spec: ModelSpec) -> dict[str, WeightTarget]:
    """Every tensor a checkpoint must have, by its Hugging Face name, and its place in the decoder."""
    targets = {
        "model.embed_tokens.weight": WeightTarget(
            parameter="embedding.weight", first_row=0, num_rows=spec.vocab_size
        ),
        "model.norm.weight": WeightTarget(parameter="norm.weight", first_row=0, num_rows=spec.model_size),
    }
    if not spec.has_tied_head:
        targets["lm_head.weight"] = WeightTarget(
            parameter="lm_head.weight", first_row=0, num_rows=spec.vocab_size
        )
    for layer in range(spec.num_layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        parts = {
            f"{ours}.input_norm.weight": {"input_layernorm.weight": spec.model_size},
            f"{ours}.attention.qkv.weight": qkv_rows(spec, "weight"),
            f"{ours}.attention.output.weight": {"self_attn.o_proj.weight": spec.model_size},
            f"{ours}.mlp_norm.weight": {"post_attention_layernorm.weight": spec.model_size},
            f"{ours}.mlp.gate_up.weight": {
                "mlp.gate_proj.weight": spec.ffn_size,
                "mlp.up_proj.weight": spec.ffn_size,
            },
            f"{ours}.mlp.down.weight": {"mlp.down_proj.weight": spec.model_size},
        }
        for parameter, rows in parts.items():
            targets |= stacked(parameter, theirs, rows)
    return targets


def qkv_rows(spec: ModelSpec, kind: str) -> dict[str, int]:
    """The tensors of a fused query, key, value projection and their row counts; kind: weight or bias."""
    return {
        f"self_attn.q_proj.{kind}": spec.num_heads * spec.head_size,
        f"self_attn.k_proj.{kind}": spec.num_kv_heads * spec.head_size,
        f"self_attn.v_proj.{kind}": spec.num_kv_heads * spec.head_size,
    }


def stacked(parameter: str, prefix: str, rows: dict[str, int]) -> dict[str, WeightTarget]:
    """Targets of tensors whose rows follow one another in one parameter."""
    targets, first_row = {}, 0
    for name, num_rows in rows.items():
        targets[f"{prefix}.{name}"] = WeightTarget(
            parameter=parameter, first_row=first_row, num_rows=num_rows
        )
        first_row += num_rows
    return targets


def _read_rope(config: Hyperparameters) -> RopeSpec:
    """`rope_parameters` as transformers 5 writes them, else `rope_theta` beside `rope_scaling`."""
    rope = config.section("rope_parameters") or config.section("rope_scaling")
    if rope is None:
        return RopeSpec(theta=config.number("rope_theta", 10_000.0))
    theta = rope.number("rope_theta", config.number("rope_theta", 10_000.0))
    if rope.values.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise rope.error("partial_rotary_factor", "only rotation of whole heads is supported")
    key = "rope_type" if rope.has("rope_type") else "type"
    match rope.values.get(key) or "default":
        case "default":
            return RopeSpec(theta=theta)
        case "linear":
            return RopeSpec(theta=theta, scaling="linear", factor=rope.number("factor"))
        case "llama3":
            return RopeSpec(
                theta=theta,
                scaling="llama3",
                factor=rope.number("factor"),
                low_freq_factor=rope.number("low_freq_factor"),
                high_freq_factor=rope.number("high_freq_factor"),
                original_max_context=rope.integer(
                    "original_max_position_embeddings", config.integer("max_position_embeddings")
                ),
            )
        case "factors":
            factors = rope.values.get("frequency_factors")
            if not isinstance(factors, tuple):
                raise rope.error("frequency_factors", "only GGUF files state them")
            return RopeSpec(theta=theta, scaling="factors", frequency_factors=factors)
        case _:
            raise rope.error(key, "only default, linear and llama3 are supported")
