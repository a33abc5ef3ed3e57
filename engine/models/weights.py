"""`fill_places`: streams a checkpoint's tensors to where a model has them, several at once.

What a place does with a tensor is its own affair: copy it, convert it, pack it as it is. Weights are
held once. Nothing here knows a family's names or a file's format.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from engine.errors import CheckpointError
from engine.kernels.cpu.packed import StoredRows
from engine.model_spec import ModelSpec
from engine.models.gguf_file import GgufFile
from engine.models.llama import WeightTarget
from engine.models.registry import family_named

if TYPE_CHECKING:
    from torch import Tensor

NAMES_SHOWN = 5

OnProgress = Callable[[int, int], None]


class WeightSource(Protocol):
    """A checkpoint's tensors by their Hugging Face names, whatever the format."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        ...

    def num_bytes(self, name: str) -> int:
        """Its size in the file, for the progress report."""
        ...

    def copy(self, name: str, destination: "Tensor") -> None:
        """Copy it into `destination`, converting; called from several threads at once."""
        ...

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """Its values, for tensors as small as norms and biases."""
        ...

    def stored(self, name: str) -> StoredRows:
        """Its rows as they are stored, valid while the source is open."""
        ...


Through = Callable[[WeightSource], WeightSource]


class Place(Protocol):
    """Where a model has one tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        ...

    def fill(self, source: WeightSource, name: str) -> None:
        """Take in tensor `name`. From any thread."""
        ...


class Packing(Protocol):
    """A projection that takes its weights as they are stored."""

    @property
    def in_size(self) -> int:
        """Columns of the weight."""
        ...

    def pack(self, first_row: int, rows: StoredRows) -> object:
        """Take in the tensor whose rows begin at `first_row`. From any thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPlace:
    """Rows of such a projection."""

    projection: Packing
    first_row: int
    num_rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
        return self.num_rows, self.projection.in_size

    def fill(self, source: WeightSource, name: str) -> None:
        """Pack tensor `name`."""
        try:
            self.projection.pack(self.first_row, source.stored(name))
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error


def as_it_is(source: WeightSource) -> WeightSource:
    """The checkpoint's own tensors."""
    return source


def open_source(path: Path, through: Through = as_it_is) -> WeightSource:
    """The tensors in `path`: a folder or a `.gguf` file. CheckpointError where it cannot be read.

    They come `through(source)`, which may change tensors but not their names and shapes.
    """
    if not path.is_dir():
        return through(GgufFile.open(path))
    from engine.models.safetensors_file import SafetensorsFiles  # noqa: PLC0415  loads torch

    return through(SafetensorsFiles.open(path))


def weight_targets(path: Path, spec: ModelSpec, source: WeightSource) -> dict[str, WeightTarget]:
    """Where each tensor of `source` belongs. CheckpointError when some are missing or unexpected."""
    targets = family_named(spec.family).weight_map(spec)
    _check_names(path, targets, [name for name in source.shapes() if not _is_superfluous(name, spec)])
    return targets


def fill_places(
    path: Path, source: WeightSource, places: Mapping[str, Place], num_threads: int, on_progress: OnProgress
) -> None:
    """Fill every place on `num_threads` threads; a tensor's shape must be its place's.

    `on_progress(done, total)` is called on this thread with bytes of the file as tensors arrive.
    CheckpointError when a tensor is misshapen or of an unsupported type.
    """
    shapes = source.shapes()
    for name, place in places.items():
        if shapes[name] != place.shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(shapes[name])}; "
                f"the model's numbers ask for {list(place.shape)}"
            )
    for done, total in _stream(source, places, num_threads):
        on_progress(done, total)


def _stream(source: WeightSource, places: Mapping[str, Place], num_threads: int) -> Iterator[tuple[int, int]]:
    """(done, total) in bytes."""
    sizes = {name: source.num_bytes(name) for name in places}
    total, done = sum(sizes.values()), 0
    yield done, total

    def fill(place: Place, name: str) -> None:
        place.fill(source, name)

    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        for name, _ in zip(places, pool.map(fill, places.values(), places), strict=True):
            done += sizes[name]
            yield done, total


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
