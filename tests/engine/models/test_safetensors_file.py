import json

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import CheckpointError
from engine.models.safetensors_file import SafetensorsFiles

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.arange(4, dtype=torch.float32).to(torch.bfloat16),
    "c": torch.ones(5, dtype=torch.float16),
}


def write_shards(folder, weight_map: dict[str, str]) -> None:
    for file_name in set(weight_map.values()):
        own = {name: TENSORS[name] for name, holder in weight_map.items() if holder == file_name}
        save_file(own, folder / file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_single_file_tells_shapes_and_sizes(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")

    files = SafetensorsFiles.open(tmp_path)

    assert files.shapes() == {"a": (2, 3), "b": (4,), "c": (5,)}
    assert [files.num_bytes(name) for name in "abc"] == [24, 8, 10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_tensors_are_converted_as_they_are_copied(tmp_path, dtype):
    save_file(TENSORS, tmp_path / "model.safetensors")
    files = SafetensorsFiles.open(tmp_path)

    for name, tensor in TENSORS.items():
        destination = torch.empty(tensor.shape, dtype=dtype)
        files.copy(name, destination)
        assert torch.equal(destination, tensor.to(dtype))


def test_shards_are_found_through_their_index(tmp_path):
    write_shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"})
    files = SafetensorsFiles.open(tmp_path)
    destination = torch.empty(4)

    files.copy("b", destination)

    assert set(files.shapes()) == {"a", "b", "c"}
    assert destination.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")

    with pytest.raises(CheckpointError, match="pickled weights") as caught:
        SafetensorsFiles.open(tmp_path)

    assert name in caught.value.message
    assert "convert them to model.safetensors" in caught.value.message


def test_pickles_beside_safetensors_are_not_looked_at(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    assert set(SafetensorsFiles.open(tmp_path).shapes()) == {"a", "b", "c"}


def test_a_folder_without_weights_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor"):
        SafetensorsFiles.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError, match=r"model\.safetensors (is not a complete|cannot be read)"):
        SafetensorsFiles.open(tmp_path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")

    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        SafetensorsFiles.open(tmp_path)


def test_an_unsupported_dtype_is_refused_with_the_tensors_name(tmp_path):
    save_file({"packed": torch.zeros(4, dtype=torch.int32)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match="tensor packed is of type I32; supported are F64, F32"):
        SafetensorsFiles.open(tmp_path).num_bytes("packed")


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ('{"weight_map": {"a": "gone.safetensors"}}', r"names gone\.safetensors, which is not a file"),
        ('{"weight_map": {"a": "../one.safetensors"}}', r"names \.\./one\.safetensors"),
        ('{"weight_map": {"z": "one.safetensors"}}', r"says that z is in one\.safetensors"),
        ('{"weight_map": 3}', "cannot be read as an index"),
        ("{", "cannot be read as an index"),
        ("{}", "cannot be read as an index"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, index, named):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(TENSORS, folder / "one.safetensors")
    save_file(TENSORS, tmp_path / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)

    with pytest.raises(CheckpointError, match=named):
        SafetensorsFiles.open(folder)
