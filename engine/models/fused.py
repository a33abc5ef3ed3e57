"""`FusedDecoder`: a decoder on native kernels, with head and sampling, computed in one call per step.

The same operations in the same order as `Decoder.forward`, whose results it gives to the last bit;
only the interpreter between them is gone, which takes longer than the arithmetic of a single row.
"""

from array import array
from collections.abc import Sequence
from ctypes import pointer

import torch
from torch import Tensor

from engine.batch import LayerCache
from engine.kernels.cpu.library import LayerWeights, ModelWeights, Stage
from engine.kernels.cpu.native import NativeKernels, all_cache_places
from engine.kernels.cpu.run_step import NativeSteps
from engine.layers.linear import Projection
from engine.layers.packed import PackedLinear
from engine.layers.rotary import Rotary
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder
from engine.models.llama import LlamaBlock

LEAST_ANGLES = 4096


class FusedDecoder:
    """`decoder` and its `caches` as one native call; its blocks are all of the Llama lineage.

    A step comes as the words that `kernels.h` describes, which are integers: nothing of it becomes a
    tensor before its answers are one. `stop` bounds the positions in it.
    """

    def __init__(
        self, decoder: Decoder, kernels: NativeKernels, caches: Sequence[LayerCache], block_size: int
    ) -> None:
        spec = decoder.spec
        self._kernels = kernels
        self._rotary = Rotary(spec.rope, spec.head_size, torch.device("cpu"), torch.float32)
        head = decoder.lm_head or decoder.embedding
        assert isinstance(head, PackedLinear)
        self._head = head.packed
        self._stage = Stage(
            model=pointer(_model_weights(decoder)),
            head=pointer(self._head.weights),
            caches=all_cache_places(caches),
            num_groups=1 + max(cache.group for cache in caches),
            block_size=block_size,
        )
        self._steps = NativeSteps(kernels, self._stage, spec.model_size)
        self._owners = (decoder, caches)  # of the memory that `_stage` points to
        self._num_angles = 0
        self._reach(LEAST_ANGLES)

    def hidden(self, words: "array[int]", num_wanted: int, stop: int) -> Tensor:
        """The wanted rows' final hidden states, normed, [R, E] float32."""
        if stop > self._num_angles:
            self._reach(stop)
        return self._steps.hidden(words, num_wanted)

    def draw(self, words: "array[int]", num_wanted: int, stop: int, draws: bytes) -> list[int]:
        """A token for each wanted row; `draws` has a row of `kernels/cpu/sampling.py` for each."""
        if stop > self._num_angles:
            self._reach(stop)
        return self._steps.draw(words, num_wanted, draws)

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, E] gives [R, V] in float32."""
        return self._kernels.linear(hidden, self._head)

    def _reach(self, num_positions: int) -> None:
        """Work out cosines and sines of so many positions from 0 on, at the least; steps look them up."""
        self._num_angles = 1 << (num_positions - 1).bit_length()
        self._angles = self._rotary.angles(torch.arange(self._num_angles))  # [positions, D / 2] each
        self._stage.cos, self._stage.sin = (table.data_ptr() for table in self._angles)


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
