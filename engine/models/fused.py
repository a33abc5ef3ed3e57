"""`FusedDecoder`: a decoder on native kernels whose layers are computed in one call per step.

The same operations in the same order as `Decoder.forward`, whose results it gives to the last bit;
only the interpreter between them is gone, which takes longer than the arithmetic of a single row.
"""

from collections.abc import Sequence
from ctypes import Array, pointer
from itertools import pairwise
from operator import add

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.kernels.cpu.library import CachePlaces, LayerWeights, ModelWeights
from engine.kernels.cpu.native import NativeKernels, all_cache_places
from engine.layers.linear import Projection
from engine.layers.packed import PackedLinear
from engine.layers.rotary import Rotary
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder
from engine.models.llama import LlamaBlock

LEAST_ANGLES = 4096


class AngleTable:
    """Cosines and sines of positions from 0 on, worked out once and looked up in every step."""

    def __init__(self, rotary: Rotary) -> None:
        self._rotary = rotary
        self._cos, self._sin = rotary.angles(torch.arange(LEAST_ANGLES))  # [positions, D / 2] each

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(cos, sin) of the batch's positions, each [T, D / 2]; of a single chunk they lie in the table."""
        lengths = [stop - start for start, stop in pairwise(batch.row_starts)]
        num_positions = max(map(add, batch.starts, lengths))
        if num_positions > self._cos.shape[0]:
            self._cos, self._sin = self._rotary.angles(torch.arange(1 << (num_positions - 1).bit_length()))
        if len(lengths) == 1:
            start, length = batch.starts[0], lengths[0]
            return self._cos.narrow(0, start, length), self._sin.narrow(0, start, length)
        return self._cos.index_select(0, batch.positions), self._sin.index_select(0, batch.positions)


class FusedDecoder:
    """Stands for `decoder` where a model is called; its blocks are all of the Llama lineage."""

    def __init__(self, decoder: Decoder, kernels: NativeKernels) -> None:
        spec = decoder.spec
        self._decoder = decoder  # owns the weights that `_weights` points to
        self._kernels = kernels
        self._angles = AngleTable(Rotary(spec.rope, spec.head_size, torch.device("cpu"), torch.float32))
        self._weights = _model_weights(decoder)
        head = decoder.lm_head or decoder.embedding
        assert isinstance(head, PackedLinear)
        self._head = head.packed
        self._caches: tuple[Sequence[LayerCache], Array[CachePlaces]] | None = None

    def __call__(self, batch: Batch, caches: Sequence[LayerCache]) -> Tensor:
        """The wanted rows' final hidden states, normed, [R, E] float32."""
        if self._caches is None or self._caches[0] is not caches:
            self._caches = caches, all_cache_places(caches)
        step = self._kernels.prepare(batch, *self._angles.rows(batch))
        return self._kernels.decode_step(self._weights, self._caches[1], batch, step)

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, E] gives [R, V] in float32."""
        return self._kernels.linear(hidden, self._head)


def _model_weights(decoder: Decoder) -> ModelWeights:
    spec = decoder.spec
    blocks = [block for block in decoder.layers if isinstance(block, LlamaBlock)]
    assert len(blocks) == spec.num_layers
    layers = (LayerWeights * spec.num_layers)(
        *(_layer_weights(block, spec, layer) for layer, block in enumerate(blocks))
    )
    return ModelWeights(
        layers=layers,
        final_norm=decoder.norm.weight.data_ptr(),
        embedding=_linear_weights(decoder.embedding),
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_size=spec.head_size,
        model_size=spec.model_size,
        ffn_size=spec.ffn_size,
        norm_eps=spec.norm_eps,
    )


def _layer_weights(block: LlamaBlock, spec: ModelSpec, layer: int) -> LayerWeights:
    attention = block.attention
    return LayerWeights(
        input_norm=block.input_norm.weight.data_ptr(),
        mlp_norm=block.mlp_norm.weight.data_ptr(),
        query_norm=None if attention.query_norm is None else attention.query_norm.weight.data_ptr(),
        key_norm=None if attention.key_norm is None else attention.key_norm.weight.data_ptr(),
        qkv=_linear_weights(attention.qkv),
        output=_linear_weights(attention.output),
        gate_up=_linear_weights(block.mlp.gate_up),
        down=_linear_weights(block.mlp.down),
        window=spec.layer_windows[layer] or 0,
    )


def _linear_weights(projection: Projection) -> object:
    """A pointer to its packed weights."""
    assert isinstance(projection, PackedLinear)
    return pointer(projection.packed.weights)
