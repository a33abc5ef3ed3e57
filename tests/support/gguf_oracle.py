"""A GGUF file's tensors by the `gguf` package alone, turned into Hugging Face's form element by element."""

from pathlib import Path

import gguf
import numpy as np
import torch

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def dequantised_state(path: Path, head_size: int) -> dict[str, torch.Tensor]:
    """Every weight in float32 under its Hugging Face name, Llama's query and key rows in their order."""
    reader = gguf.GGUFReader(path)
    is_llama = reader.get_field("general.architecture").contents() == "llama"
    state = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = np.array(gguf.dequantize(np.array(tensor.data), tensor.tensor_type), dtype=np.float32)
        if is_llama and tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            values = values[hf_row_order(len(values), head_size)]
        state[_name(tensor.name)] = torch.from_numpy(values)
    return state


def hf_row_order(num_rows: int, head_size: int) -> list[int]:
    """Which GGUF row is Hugging Face's row r: pairs (2 i, 2 i + 1) of a head are its rows i, i + D / 2."""
    order = []
    for head in range(num_rows // head_size):
        for half in range(2):
            for pair in range(head_size // 2):
                order.append(head * head_size + 2 * pair + half)
    return order


def _name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{kind}"
