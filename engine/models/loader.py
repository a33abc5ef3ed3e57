"""`load_decoder`: build a decoder with empty parameters, then stream a checkpoint's tensors into them.

Weights are held once: each tensor is copied, converted, from the mapped file into the rows of the
parameter that is its place, or packed as it is where a projection does that. Nothing here knows a family's names or a file's format.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.kernels.cpu.packed import StoredRows
from engine.layers.grouped import GroupedLinear
from engine.layers.kit import LayerKit
from engine.layers.packed import PackedLinear
from engine.layers.rounded import RoundedLinear
from engine.model_spec import ModelSpec
from engine.models.decoder import Decoder
from engine.models.gguf_file import GgufFile
from engine.models.llama import WeightTarget
from engine.models.registry import family_named
from engine.models.safetensors_file import SafetensorsFiles

NAMES_SHOWN = 5


class WeightSource(Protocol):
    """A checkpoint's tensors by their Hugging Face names, whatever the format."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        ...

    def num_bytes(self, name: str) -> int:
        """Its size in the file, for the progress report."""
        ...

    def copy(self, name: str, destination: Tensor) -> None:
        """Copy it into `destination`, converting; called from several threads at once."""
        ...

    def stored(self, name: str) -> StoredRows:
        """Its rows as they are stored, valid while the source is open."""
        ...


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
class PackedPlace:
    """Rows of a projection that packs its weights."""

    projection: PackedLinear
    first_row: int
    num_rows: int

    def fill(self, source: WeightSource, name: str) -> None:
        """Pack tensor `name`."""
        try:
            self.projection.pack(self.first_row, source.stored(name))
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        return self.num_rows, self.projection.packed.in_size


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedPlace:
    """Rows of a projection that holds codes in groups."""

    projection: GroupedLinear
    first_row: int
    num_rows: int

    def fill(self, source: WeightSource, name: str) -> None:
        """Take the codes of tensor `name`."""
        self.projection.pack(self.first_row, source.stored(name))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        return self.num_rows, self.projection.in_size


Place = DensePlace | PackedPlace | RoundedPlace | GroupedPlace


def as_it_is(source: WeightSource) -> WeightSource:
    """The checkpoint's own tensors."""
    return source


def load_decoder(
    path: Path,
    spec: ModelSpec,
    kit: LayerKit,
    on_progress: Callable[[int, int], None],
    through: Callable[[WeightSource], WeightSource] = as_it_is,
) -> Decoder:
    """The decoder of `spec`, built with `kit`, with the weights in `path`: a folder or a `.gguf` file.

    `on_progress(done, total)` is called on this thread with bytes of the file as tensors arrive.
    What is loaded is `through(source)`, which may change tensors but not their names and shapes.
    CheckpointError when tensors are missing, unexpected, misshapen or of an unsupported type.
    """
    source = through(SafetensorsFiles.open(path) if path.is_dir() else GgufFile.open(path))
    family = family_named(spec.family)
    targets = family.weight_map(spec)
    shapes = source.shapes()
    _check_names(path, targets, [name for name in shapes if not _is_superfluous(name, spec)])
    decoder = Decoder(spec, kit, family.make_block)
    places = _places(path, decoder, targets, shapes)
    for done, total in _stream(source, places):
        on_progress(done, total)
    return decoder


def _stream(source: WeightSource, places: Mapping[str, Place]) -> Iterator[tuple[int, int]]:
    """Fill every place, on as many threads as torch computes with; yields (done, total) in bytes."""
    sizes = {name: source.num_bytes(name) for name in places}
    total, done = sum(sizes.values()), 0
    yield done, total

    def fill(place: Place, name: str) -> None:
        place.fill(source, name)

    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for name, _ in zip(places, pool.map(fill, places.values(), places), strict=True):
            done += sizes[name]
            yield done, total


def _places(
    path: Path,
    decoder: Decoder,
    targets: Mapping[str, WeightTarget],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Place]:
    """For each tensor, where in the decoder it goes; its shape must be the place's."""
    places: dict[str, Place] = {}
    for name, target in targets.items():
        place = _place(decoder, target)
        if shapes[name] != place.shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(shapes[name])}; "
                f"the model's numbers ask for {list(place.shape)}"
            )
        places[name] = place
    return places


def _place(decoder: Decoder, target: WeightTarget) -> Place:
    owner, _, parameter = target.parameter.rpartition(".")
    module = decoder.get_submodule(owner)
    if isinstance(module, PackedLinear) and parameter == "weight":
        return PackedPlace(projection=module, first_row=target.first_row, num_rows=target.num_rows)
    if isinstance(module, RoundedLinear) and parameter == "weight":
        return RoundedPlace(projection=module, first_row=target.first_row, num_rows=target.num_rows)
    if isinstance(module, GroupedLinear) and parameter == "weight":
        return GroupedPlace(projection=module, first_row=target.first_row, num_rows=target.num_rows)
    rows = decoder.get_parameter(target.parameter).narrow(0, target.first_row, target.num_rows)
    return DensePlace(rows=rows)


def _check_names(path: Path, expected: Collection[str], present: Collection[str]) -> None:
    missing = sorted(set(expected) - set(present))
    unexpected = sorted(set(present) - set(expected))
    complaints = [
        f"{kind} {len(names)}: {', '.join(names[:NAMES_SHOWN])}{', …' if len(names) > NAMES_SHOWN else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if complaints:
        raise CheckpointError(f"{path}: the tensors are not those of the model; {'; '.join(complaints)}")


def _is_superfluous(name: str, spec: ModelSpec) -> bool:
    """Tensors that some checkpoints carry though they say nothing: a tied head, precomputed angles."""
    return name.endswith(".rotary_emb.inv_freq") or (name == "lm_head.weight" and spec.has_tied_head)
