"""`NativeWeights`: a model's weights as the native kernels read them, and how they are loaded.

Projections stay in the checkpoint's own precision, packed; norms and biases are float32. Every family
of the Llama lineage has these weights and no others. torch is not needed for them.
"""

import ctypes
from collections.abc import Mapping
from ctypes import pointer
from dataclasses import dataclass
from pathlib import Path

from engine.kernels.cpu.library import LayerWeights, ModelWeights
from engine.kernels.cpu.memory import Floats, empty_floats
from engine.kernels.cpu.packed import PackedWeights
from engine.model_spec import ModelSpec
from engine.models.llama import WeightTarget
from engine.models.weights import (
    OnProgress,
    PackedPlace,
    Place,
    Through,
    WeightSource,
    as_it_is,
    fill_places,
    open_source,
    weight_targets,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeWeights:
    """Packed projections and float32 vectors, by the names that a family's weight map gives their owners."""

    spec: ModelSpec
    projections: Mapping[str, PackedWeights]
    vectors: Mapping[str, Floats]

    @classmethod
    def empty(cls, spec: ModelSpec, library: ctypes.CDLL) -> "NativeWeights":
        """Weights that are still to be filled."""
        vectors = {"norm.weight": empty_floats(spec.model_size)}
        projections = {"embedding": PackedWeights(library, spec.model_size, (spec.vocab_size,), None)}
        if not spec.has_tied_head:
            projections["lm_head"] = PackedWeights(library, spec.model_size, (spec.vocab_size,), None)
        for layer in range(spec.num_layers):
            vectors |= {f"layers.{layer}.{name}": empty_floats(size) for name, size in _vectors(spec).items()}
            for name, (in_size, out_sizes) in _projections(spec).items():
                bias = vectors.get(f"layers.{layer}.{name}.bias")
                projections[f"layers.{layer}.{name}"] = PackedWeights(library, in_size, out_sizes, bias)
        return cls(spec=spec, projections=projections, vectors=vectors)

    @property
    def head(self) -> PackedWeights:
        """What turns hidden states into logits: the embedding where they are tied."""
        return self.projections["embedding" if self.spec.has_tied_head else "lm_head"]

    @property
    def num_bytes(self) -> int:
        """Memory of all weights, each counted once."""
        packed = sum(packed.num_bytes for packed in self.projections.values())
        return packed + sum(vector.nbytes for vector in self.vectors.values())

    def fill(
        self, path: Path, num_threads: int, on_progress: OnProgress, through: Through = as_it_is
    ) -> None:
        """Pack what is in `path`, a folder or a `.gguf` file, on `num_threads` threads.

        `on_progress` and errors are those of `fill_places`, `through` is that of `open_source`.
        """
        source = open_source(path, through)
        targets = weight_targets(path, self.spec, source)
        places = {name: self._place(target) for name, target in targets.items()}
        fill_places(path, source, places, num_threads, on_progress)

    def _place(self, target: WeightTarget) -> Place:
        rows = slice(target.first_row, target.first_row + target.num_rows)
        if target.parameter in self.vectors:
            return _VectorPlace(rows=self.vectors[target.parameter][rows])
        packed = self.projections[target.parameter.removesuffix(".weight")]
        return PackedPlace(projection=packed, first_row=target.first_row, num_rows=target.num_rows)

    def to_structure(self) -> ModelWeights:
        """The same for the library, valid as long as these weights."""
        spec = self.spec
        layers = (LayerWeights * spec.num_layers)(*(self._layer(layer) for layer in range(spec.num_layers)))
        return ModelWeights(
            layers=layers,
            final_norm=self.vectors["norm.weight"].ctypes.data,
            embedding=pointer(self.projections["embedding"].weights),
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_size=spec.head_size,
            model_size=spec.model_size,
            ffn_size=spec.ffn_size,
            norm_eps=spec.norm_eps,
        )

    def _layer(self, layer: int) -> LayerWeights:
        def address(name: str) -> int | None:
            vector = self.vectors.get(f"layers.{layer}.{name}.weight")
            return None if vector is None else vector.ctypes.data

        def linear(name: str) -> object:
            return pointer(self.projections[f"layers.{layer}.{name}"].weights)

        return LayerWeights(
            input_norm=address("input_norm"),
            mlp_norm=address("mlp_norm"),
            query_norm=address("attention.query_norm"),
            key_norm=address("attention.key_norm"),
            qkv=linear("attention.qkv"),
            output=linear("attention.output"),
            gate_up=linear("mlp.gate_up"),
            down=linear("mlp.down"),
            window=self.spec.layer_windows[layer] or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _VectorPlace:
    """A part of a norm or bias."""

    rows: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.rows.shape)

    def fill(self, source: WeightSource, name: str) -> None:
        self.rows[:] = source.floats(name)


def _projections(spec: ModelSpec) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Each projection of a layer: rows it takes, and the sizes of what it gives."""
    query_size, kv_size = spec.num_heads * spec.head_size, spec.num_kv_heads * spec.head_size
    return {
        "attention.qkv": (spec.model_size, (query_size, kv_size, kv_size)),
        "attention.output": (query_size, (spec.model_size,)),
        "mlp.gate_up": (spec.model_size, (spec.ffn_size, spec.ffn_size)),
        "mlp.down": (spec.ffn_size, (spec.model_size,)),
    }


def _vectors(spec: ModelSpec) -> dict[str, int]:
    """The norms and biases of a layer, and their sizes."""
    sizes = {"input_norm.weight": spec.model_size, "mlp_norm.weight": spec.model_size}
    if spec.has_qkv_bias:
        sizes["attention.qkv.bias"] = sum(_projections(spec)["attention.qkv"][1])
    if spec.has_qk_norm:
        sizes |= dict.fromkeys(("attention.query_norm.weight", "attention.key_norm.weight"), spec.head_size)
    return sizes
