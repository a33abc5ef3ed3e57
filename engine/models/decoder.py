"""`Decoder`: embedding, a family's blocks, final norm, head.

It computes a step's `Batch` over the caches it is handed, and knows no scheduler, no table and no
file format. What a block is made of is the family's affair.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.batch import Batch, LayerCache
from engine.layers.kit import LayerKit
from engine.layers.linear import Projection, TokenTable
from engine.layers.norm import RMSNorm
from engine.model_spec import ModelSpec


class Block(Protocol):
    """One layer of a family, as the decoder runs it."""

    def __call__(
        self, hidden: Tensor, residual: Tensor | None, cache: LayerCache, prepared: object
    ) -> tuple[Tensor, Tensor]:
        """(output not yet added, residual stream), each [T, E], to the same of the next layer."""
        ...


class MakeBlock(Protocol):
    """A family's way to build layer `layer`; its projections are named after that layer."""

    def __call__(self, kit: LayerKit, spec: ModelSpec, layer: int) -> nn.Module:
        """A module that is a `Block`."""
        ...


class Decoder(nn.Module):
    """A decoder-only transformer whose parameters are loaded in place and never trained."""

    def __init__(self, spec: ModelSpec, kit: LayerKit, make_block: MakeBlock) -> None:
        super().__init__()
        self.spec = spec
        self.embedding: TokenTable = kit.linears.table("embedding", spec.vocab_size, spec.model_size)
        self.layers = nn.ModuleList(make_block(kit, spec, layer) for layer in range(spec.num_layers))
        self.norm = RMSNorm(kit, spec.model_size, spec.norm_eps)
        self.lm_head: Projection | None = None  # None: the embedding is the head
        if not spec.has_tied_head:
            self.lm_head = kit.linears("lm_head", spec.model_size, (spec.vocab_size,), has_bias=False)
        self._rotary = kit.rotary(spec.rope, spec.head_size, kit.device, kit.dtype)
        self._ops = kit.ops

    def forward(self, batch: Batch, caches: Sequence[LayerCache]) -> Tensor:
        """The wanted rows' final hidden states, normed, [R, E].

        `caches[l]` is layer l's; every token's key and value are in their slots afterwards.
        """
        prepared = self._ops.prepare(batch, *self._rotary.angles(batch.positions))
        hidden = self.embedding.look_up(batch.token_ids)  # [T, E]
        residual: Tensor | None = None
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden, residual = layer(hidden, residual, cache, prepared)
        if residual is not None:
            residual = residual.index_select(0, batch.wanted_rows)  # [R, E]
        hidden = hidden.index_select(0, batch.wanted_rows)  # [R, E]
        return self.norm.add(hidden, residual)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, E] of `forward` gives [R, V] in float32 (float64 of a float64 model)."""
        logits = self.embedding(hidden) if self.lm_head is None else self.lm_head(hidden)
        return logits if logits.dtype == torch.float64 else logits.float()  # [R, V]

    @property
    def weight_bytes(self) -> int:
        """Memory of all weights, each counted once."""
        return sum(weight.nbytes for weight in (*self.parameters(), *self.buffers()))
