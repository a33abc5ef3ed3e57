import threading

import numpy as np
import pytest

from engine.errors import CheckpointError
from engine.models.gguf_file import GgufFile
from engine.models.registry import read_spec
from engine.models.weights import fill_places, open_source, weight_targets
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf


class Source:
    """Two tensors of four and eight bytes."""

    def shapes(self):
        return {"first": (2,), "second": (4,)}

    def num_bytes(self, name):
        return {"first": 4, "second": 8}[name]


class Place:
    def __init__(self, *shape, filling=lambda: None):
        self.shape = shape
        self.filled = []
        self._filling = filling

    def fill(self, source, name):
        self._filling()
        self.filled.append(name)


def test_every_place_is_filled_once_and_bytes_are_told(tmp_path):
    places, told = {"first": Place(2), "second": Place(4)}, []

    fill_places(tmp_path, Source(), places, 2, lambda done, total: told.append((done, total)))

    assert [place.filled for place in places.values()] == [["first"], ["second"]]
    assert told == [(0, 12), (4, 12), (12, 12)]


def test_places_are_filled_side_by_side(tmp_path):
    meeting = threading.Barrier(2, timeout=10)
    places = {"first": Place(2, filling=meeting.wait), "second": Place(4, filling=meeting.wait)}

    fill_places(tmp_path, Source(), places, 2, lambda *_: None)

    assert places["second"].filled == ["second"]


def test_a_wrong_shape_is_refused_before_anything_is_filled(tmp_path):
    places, told = {"first": Place(2), "second": Place(5)}, []

    with pytest.raises(CheckpointError, match=r"second has shape \[4\]; the model's numbers ask for \[5\]"):
        fill_places(tmp_path, Source(), places, 1, lambda *numbers: told.append(numbers))
    assert (places["first"].filled, told) == ([], [])


def test_a_folder_and_a_file_tell_the_same_of_their_vectors(tmp_path):
    file = write_tiny_gguf(tmp_path, "Q4_1")
    folder = write_tiny_checkpoint(tmp_path / "hf", "llama", with_tokenizer=False)

    assert isinstance(open_source(file), GgufFile)
    for path in (file, folder):
        norm = open_source(path).floats("model.norm.weight")
        assert norm.dtype == np.float32
        assert norm.shape == (read_spec(path).model_size,)


def test_targets_are_those_of_the_family(tmp_path):
    folder = write_tiny_checkpoint(tmp_path, "qwen2", with_tokenizer=False)
    source = open_source(folder)

    targets = weight_targets(folder, read_spec(folder), source)

    assert set(targets) == set(source.shapes())
    assert targets["model.layers.1.self_attn.k_proj.bias"].parameter == "layers.1.attention.qkv.bias"
