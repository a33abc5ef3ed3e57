"""`load_decoder`: build a decoder in torch with empty parameters, then fill them from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.layers.grouped import GroupedLinear
from engine.layers.kit import LayerKit
from engine.layers.packed import PackedLinear
from engine.layers.rounded import RoundedLinear
from engine.model_spec import ModelSpec
from engine.models.blocks import MAKE_BLOCK
from engine.models.decoder import Decoder
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
class DensePlace:
    """Rows of a parameter."""

    rows: Tensor

    def fill(self, source: WeightSource, name: str) -> None:
        """Copy tensor `name` into them."""
        source.copy(name, self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        return tuple(self.rows.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedPlace:
    """Rows of a projection that rounds its weights."""

    projection: RoundedLinear
    first_row: int
    num_rows: int

    def fill(self, source: WeightSource, name: str) -> None:
        """Round tensor `name`."""
        values = torch.empty(self.shape, dtype=torch.bfloat16)
        source.copy(name, values)
        self.projection.take(self.first_row, values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        return self.num_rows, self.projection.in_size


def load_decoder(
    path: Path,
    spec: ModelSpec,
    kit: LayerKit,
    on_progress: OnProgress,
    through: Through = as_it_is,
) -> Decoder:
    """The decoder of `spec`, built with `kit`, with the weights in `path`: a folder or a `.gguf` file.

    It is filled on as many threads as torch computes with. `on_progress` and errors are those of
    `fill_places`, `through` is that of `open_source`.
    """
    source = open_source(path, through)
    targets = weight_targets(path, spec, source)
    decoder = Decoder(spec, kit, MAKE_BLOCK[spec.family])
    places = {name: _place(decoder, target) for name, target in targets.items()}
    fill_places(path, source, places, torch.get_num_threads(), on_progress)
    return decoder


def _place(decoder: Decoder, target: WeightTarget) -> Place:
    owner, _, parameter = target.parameter.rpartition(".")
    module = decoder.get_submodule(owner)
    if isinstance(module, PackedLinear | GroupedLinear) and parameter == "weight":
        return PackedPlace(projection=module, first_row=target.first_row, num_rows=target.num_rows)
    if isinstance(module, RoundedLinear) and parameter == "weight":
        return RoundedPlace(projection=module, first_row=target.first_row, num_rows=target.num_rows)
    rows = decoder.get_parameter(target.parameter).narrow(0, target.first_row, target.num_rows)
    return DensePlace(rows=rows)
