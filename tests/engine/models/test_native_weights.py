import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import CheckpointError
from engine.models.native_weights import NativeWeights
from engine.models.registry import read_spec
from tests.support.native import LEVELS, native_kernels, needs_native
from tests.support.native_models import load_native
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf

pytestmark = needs_native


def load(path, reports=None):
    def on_progress(done, total):
        if reports is not None:
            reports.append((done, total))

    weights = NativeWeights.empty(read_spec(path), native_kernels(LEVELS[0]).library)
    weights.fill(path, 2, on_progress)
    return weights


@pytest.fixture(params=["llama", "mistral", "qwen2", "qwen3"])
def folder(request, tmp_path):
    return write_tiny_checkpoint(tmp_path, request.param, with_tokenizer=False)


def test_every_weight_arrives_where_the_decoder_in_torch_has_it(folder):
    weights, decoder = load(folder), load_native(folder, LEVELS[0])

    for name, packed in weights.projections.items():
        own = decoder.get_submodule(name).packed
        assert np.array_equal(packed.unpacked(), own.unpacked())
    for name, vector in weights.vectors.items():
        assert torch.equal(torch.from_numpy(vector), decoder.get_parameter(name))
    assert len(weights.projections) == 4 * 2 + 2
    assert weights.num_bytes == decoder.weight_bytes


def test_progress_rises_to_the_size_of_the_tensors(folder):
    reports = []

    load(folder, reports)

    num_bytes = sum(tensor.nbytes for tensor in load_file(folder / "model.safetensors").values())
    assert (reports[0], reports[-1]) == ((0, num_bytes), (num_bytes, num_bytes))
    assert reports == sorted(reports)


def test_a_tied_head_is_the_embedding(tmp_path):
    tied = load(write_tiny_checkpoint(tmp_path / "tied", "llama", is_tied=True, with_tokenizer=False))
    own = load(write_tiny_checkpoint(tmp_path / "own", "llama", with_tokenizer=False))

    assert tied.head is tied.projections["embedding"]
    assert own.head is own.projections["lm_head"]
    assert tied.num_bytes < own.num_bytes


def test_the_structure_points_to_the_vectors_and_says_the_specs_numbers(tmp_path):
    weights = load(write_tiny_checkpoint(tmp_path, "mistral", window=8, with_tokenizer=False))

    structure, spec = weights.to_structure(), weights.spec

    assert structure.final_norm == weights.vectors["norm.weight"].ctypes.data
    assert [structure.layers[layer].window for layer in range(spec.num_layers)] == [8, 8]
    assert structure.layers[1].mlp_norm == weights.vectors["layers.1.mlp_norm.weight"].ctypes.data
    assert structure.layers[0].query_norm is None
    assert structure.layers[1].qkv.contents.out_size == spec.head_size * (
        spec.num_heads + 2 * spec.num_kv_heads
    )


def test_a_gguf_file_is_read_without_torch(tmp_path):
    path = write_tiny_gguf(tmp_path, "Q4_1", is_tied=True)
    code = (
        "import sys; from pathlib import Path; from engine.kernels.cpu.context import KernelContext;"
        "from engine.models.native_weights import NativeWeights;"
        "from engine.models.registry import read_spec; path = Path(sys.argv[1]);"
        "kernels = KernelContext.open(1);"
        "NativeWeights.empty(read_spec(path), kernels.library).fill(path, 1, lambda *_: None);"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"


def test_a_misshapen_tensor_is_named(folder):
    spec = dataclasses.replace(read_spec(folder), ffn_size=64)
    weights = NativeWeights.empty(spec, native_kernels(LEVELS[0]).library)

    with pytest.raises(CheckpointError, match=r"mlp\.gate_proj\.weight has shape .* ask for \[64, 48\]"):
        weights.fill(folder, 1, lambda *_: None)
