"""transformers' own model with the demo model's weights, dequantised and renamed here from the GGUF file.

Independent of our loader: names, permutation and numbers are worked out once more.
"""

from pathlib import Path

import gguf
import numpy as np
import torch

NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def demo_oracle(path: Path, window: int | None = None) -> torch.nn.Module:
    """float32, eager, without a cache; with `window`, the same weights as a Mistral that slides."""
    import transformers

    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    numbers = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": True,
    }
    if window is None:
        config = transformers.LlamaConfig(**numbers)
    else:
        config = transformers.MistralConfig(**numbers, sliding_window=window)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    state = {
        "model.embed_tokens.weight": _dense(tensors["token_embd.weight"]),
        "lm_head.weight": _dense(tensors["token_embd.weight"]),
        "model.norm.weight": _dense(tensors["output_norm.weight"]),
    }
    for layer in range(30):
        for theirs, ours in NAMES.items():
            weight = _dense(tensors[f"blk.{layer}.{theirs}.weight"])
            if theirs in ("attn_q", "attn_k"):
                weight = _halves(weight, num_heads=9 if theirs == "attn_q" else 3)
            state[f"model.layers.{layer}.{ours}.weight"] = weight
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers were on no device
    return model.eval()


def _dense(tensor: gguf.ReaderTensor) -> torch.Tensor:
    return torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))


def _halves(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """GGUF files hold a head's rotated pairs side by side; transformers wants the first halves first."""
    rows, columns = weight.shape
    return weight.view(num_heads, rows // num_heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
