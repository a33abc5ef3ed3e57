"""The same model with its channels in another order: every result stays, every group of 32 is another."""

from typing import Any

import torch


def permute_channels(model: Any, seed: int) -> None:  # transformers' classes have no types
    """Reorder in place the hidden channels, those of each feed-forward layer, and those of each value head.

    For transformers' models of the Llama lineage without biases.
    """
    generator = torch.Generator().manual_seed(seed)
    core = model.model
    hidden = _order(core.embed_tokens.weight.shape[1], generator)
    _columns(core.embed_tokens, hidden)
    if model.lm_head.weight.data_ptr() != core.embed_tokens.weight.data_ptr():
        _columns(model.lm_head, hidden)
    core.norm.weight.data = core.norm.weight.data[hidden]
    for layer in core.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data = norm.weight.data[hidden]
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            _columns(reader, hidden)
        for writer in (attention.o_proj, mlp.down_proj):
            _rows(writer, hidden)
        inner = _order(mlp.down_proj.weight.shape[1], generator)
        _rows(mlp.gate_proj, inner)
        _rows(mlp.up_proj, inner)
        _columns(mlp.down_proj, inner)
        _permute_values(attention, generator)


def _permute_values(attention: Any, generator: torch.Generator) -> None:
    """Each value head's channels, and the columns that read them: those of all its query heads."""
    size = attention.head_dim
    num_kv_heads = attention.v_proj.weight.shape[0] // size
    num_heads = attention.o_proj.weight.shape[1] // size
    orders = [_order(size, generator) for _ in range(num_kv_heads)]
    _rows(attention.v_proj, torch.cat([head * size + order for head, order in enumerate(orders)]))
    readers = [head * size + orders[head * num_kv_heads // num_heads] for head in range(num_heads)]
    _columns(attention.o_proj, torch.cat(readers))


def _order(size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(size, generator=generator)


def _rows(linear: Any, order: torch.Tensor) -> None:
    linear.weight.data = linear.weight.data[order].contiguous()


def _columns(linear: Any, order: torch.Tensor) -> None:
    linear.weight.data = linear.weight.data[:, order].contiguous()
