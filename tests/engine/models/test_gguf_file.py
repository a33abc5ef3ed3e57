from pathlib import Path

import gguf
import pytest
import torch

from engine.errors import CheckpointError
from engine.models.gguf_file import TENSOR_TYPES, GgufFile
from engine.models.registry import read_spec
from tests.support.gguf_oracle import dequantised_state
from tests.support.tiny_model import GGUF_SIZES, MAX_CONTEXT, write_tiny_gguf

HEAD_SIZE = GGUF_SIZES["head"]


def copied(file: GgufFile, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    tensors = {name: torch.empty(shape, dtype=dtype) for name, shape in file.shapes().items()}
    for name, destination in tensors.items():
        file.copy(name, destination)
    return tensors


@pytest.mark.parametrize("tensor_type", TENSOR_TYPES)
def test_every_type_is_dequantised_as_the_gguf_package_does(tmp_path, tensor_type):
    path = write_tiny_gguf(tmp_path, tensor_type)

    found = copied(GgufFile.open(path))

    expected = dequantised_state(path, HEAD_SIZE)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
        assert values.isfinite().all()
        assert len(values.unique()) > 8


def test_queries_and_keys_of_qwen_are_not_reordered(tmp_path):
    path = write_tiny_gguf(tmp_path, "F32", architecture="qwen2")

    found = copied(GgufFile.open(path))

    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    assert (found["model.layers.0.self_attn.q_proj.weight"].numpy() == stored["blk.0.attn_q.weight"]).all()


def test_values_are_rounded_once_to_the_dtype_of_their_destination(tmp_path):
    path = write_tiny_gguf(tmp_path, "Q4_1")

    found = copied(GgufFile.open(path), torch.bfloat16)

    for name, values in dequantised_state(path, HEAD_SIZE).items():
        assert torch.equal(found[name], values.to(torch.bfloat16)), name


def test_tensors_longer_than_a_slice_come_out_whole(tmp_path, monkeypatch):
    path = write_tiny_gguf(tmp_path, "Q8_0")
    monkeypatch.setattr("engine.models.gguf_file.SLICE_ELEMENTS", 1000)

    found = copied(GgufFile.open(path))

    for name, values in dequantised_state(path, HEAD_SIZE).items():
        assert torch.equal(found[name], values), name


def test_metadata_become_a_spec(tmp_path):
    spec = read_spec(write_tiny_gguf(tmp_path, "F32", metadata={"tokenizer.ggml.eot_token_id": 259}))

    size = GGUF_SIZES
    assert (spec.family, spec.num_layers, spec.model_size, spec.ffn_size) == ("llama", 2, 256, 256)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_size) == (4, 2, HEAD_SIZE)
    assert (spec.vocab_size, spec.max_context) == (size["vocab"], MAX_CONTEXT)
    assert (spec.rope.theta, spec.rope.scaling, round(spec.norm_eps, 9)) == (10_000.0, "none", 1e-5)
    assert (spec.eos_ids, spec.layer_windows) == ((257, 259), (None, None))


def test_an_end_of_sequence_id_of_zero_counts(tmp_path):
    spec = read_spec(write_tiny_gguf(tmp_path, "F32", metadata={"tokenizer.ggml.eot_token_id": 0}))

    assert spec.eos_ids == (257, 0)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_file_without_output_tensor_has_a_tied_head(tmp_path, is_tied):
    assert read_spec(write_tiny_gguf(tmp_path, "F32", is_tied=is_tied)).has_tied_head == is_tied


def test_rope_factors_are_read_from_their_tensor(tmp_path):
    factors = tuple(1.0 + 0.25 * index for index in range(HEAD_SIZE // 2))
    path = write_tiny_gguf(tmp_path, "F32", rope_factors=factors)

    rope = read_spec(path).rope

    assert (rope.scaling, rope.frequency_factors) == ("factors", factors)
    assert "rope_freqs.weight" not in GgufFile.open(path).shapes()


@pytest.mark.parametrize(
    "metadata",
    [
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope.scale_linear": 4.0},
    ],
    ids=["new", "old"],
)
def test_linear_rope_scaling_is_read(tmp_path, metadata):
    rope = read_spec(write_tiny_gguf(tmp_path, "F32", metadata=metadata)).rope

    assert (rope.scaling, rope.factor) == ("linear", 4.0)


def test_a_llama_file_with_a_window_is_a_mistral(tmp_path):
    spec = read_spec(write_tiny_gguf(tmp_path, "F32", metadata={"attention.sliding_window": 8}))

    assert (spec.family, spec.layer_windows) == ("mistral", (8, 8))


@pytest.mark.parametrize(
    ("architecture", "metadata", "named"),
    [
        ("llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "rope_type is 'yarn'"),
        ("llama", {"rope.dimension_count": 32}, r"llama\.rope\.dimension_count is 32"),
        ("llama", {"attention.value_length": 32}, r"llama\.attention\.value_length is 32"),
        ("llama", {"expert_count": 8}, "num_experts is 8"),
        ("llama", {"attention.clamp_kqv": 8.0}, r"clip_qkv is 8\.0"),
        ("qwen2", {"attention.sliding_window": 8}, r"qwen2\.attention\.sliding_window is 8"),
        ("llama", {"split.count": 3}, "one part of several"),
    ],
)
def test_what_would_change_the_maths_is_refused_by_name(tmp_path, architecture, metadata, named):
    path = write_tiny_gguf(tmp_path, "F32", architecture=architecture, metadata=metadata)

    with pytest.raises(CheckpointError, match=named):
        read_spec(path)


def test_whole_heads_may_be_stated(tmp_path):
    stated = {"rope.dimension_count": 64, "attention.key_length": 64, "attention.value_length": 64}

    assert read_spec(write_tiny_gguf(tmp_path, "F32", metadata=stated)).head_size == 64


def test_an_unsupported_tensor_type_is_refused_with_the_tensors_name(tmp_path):
    path = write_tiny_gguf(tmp_path, "TQ1_0")

    with pytest.raises(CheckpointError, match=r"token_embd\.weight is of type TQ1_0; supported are F32, F16"):
        GgufFile.open(path).num_bytes("model.embed_tokens.weight")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = write_tiny_gguf(tmp_path, "Q8_0")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(CheckpointError, match=r"\.gguf (is not a complete GGUF file|cannot be read)"):
        GgufFile.open(path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all, but long enough to look for a header in it")

    with pytest.raises(CheckpointError, match="is not a complete GGUF file"):
        GgufFile.open(path)


def test_stepping_over_the_tokenizer_leaves_all_else_as_the_package_reads_it(tmp_path):
    path = write_tiny_gguf(tmp_path, "Q4_0")

    ours, theirs = GgufFile.open(path), gguf.GGUFReader(path)

    read = ours.hyperparameters()
    for key, ours_key in (
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
    ):
        assert read.integer(ours_key) == theirs.get_field(f"llama.{key}").contents()
    assert sum(map(ours.num_bytes, ours.shapes())) == sum(tensor.n_bytes for tensor in theirs.tensors)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.gguf cannot be read"):
        GgufFile.open(Path(tmp_path / "absent.gguf"))
