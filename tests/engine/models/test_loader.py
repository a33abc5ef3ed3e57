import json

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from engine.errors import CheckpointError
from engine.kernels.ops import REFERENCE
from engine.kernels.rounded import round_rows
from engine.layers.kit import LayerKit
from engine.models.decoder import Decoder
from engine.models.gguf_file import TENSOR_TYPES
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from tests.support.gguf_oracle import dequantised_state
from tests.support.layer_kit import cpu_kit
from tests.support.native import LEVELS, needs_native
from tests.support.native_models import load_native
from tests.support.pack_by_hand import RingRun
from tests.support.tiny_model import (
    GGUF_SIZES,
    MAX_CONTEXT,
    ROPE_LLAMA3,
    oracle_logits,
    oracle_model,
    write_tiny_checkpoint,
    write_tiny_gguf,
)

IDS = list(range(40, 60))


def load(path, dtype: torch.dtype = torch.float32, on_progress=lambda _done, _total: None) -> Decoder:
    return load_decoder(path, read_spec(path), cpu_kit(dtype), on_progress)


def logits(decoder: Decoder) -> torch.Tensor:
    return RingRun(decoder, block_size=4, max_chunk=len(IDS)).step([(0, IDS)])


@pytest.fixture
def folder(tmp_path):
    return write_tiny_checkpoint(tmp_path, "qwen2", with_tokenizer=False)


def rewrite(folder, **changes: torch.Tensor | None) -> None:
    """Change tensors of a checkpoint; None removes one. `__` in a name stands for a dot."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, path)


def test_every_weight_arrives_in_its_rows(folder):
    decoder = load(folder)

    tensors, parameters = load_file(folder / "model.safetensors"), dict(decoder.named_parameters())
    for kind in ("weight", "bias"):
        parts = [tensors[f"model.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert torch.equal(parameters[f"layers.1.attention.qkv.{kind}"], torch.cat(parts))
    gate_up = [tensors[f"model.layers.0.mlp.{part}_proj.weight"] for part in ("gate", "up")]
    assert torch.equal(parameters["layers.0.mlp.gate_up.weight"], torch.cat(gate_up))
    assert sum(p.numel() for p in parameters.values()) == sum(t.numel() for t in tensors.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_weights_are_converted_to_the_dtype_asked_for(folder, dtype):
    decoder = load(folder, dtype)

    expected = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].to(dtype)
    assert torch.equal(decoder.embedding.weight, expected)
    assert {parameter.dtype for parameter in decoder.parameters()} == {dtype}


def test_progress_rises_to_the_size_of_the_tensors(folder):
    reports = []

    load(folder, on_progress=lambda done, total: reports.append((done, total)))

    num_bytes = sum(tensor.nbytes for tensor in load_file(folder / "model.safetensors").values())
    assert reports[0] == (0, num_bytes)
    assert reports[-1] == (num_bytes, num_bytes)
    assert reports == sorted(reports)


def test_missing_and_unexpected_tensors_are_named(folder):
    rewrite(folder, model__norm__weight=None, model__extra__weight=torch.ones(3))

    with pytest.raises(CheckpointError) as caught:
        load(folder)

    assert "missing 1: model.norm.weight; unexpected 1: model.extra.weight" in caught.value.message


def test_a_long_list_of_missing_tensors_is_cut(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(
        CheckpointError, match=r"missing 12: model\.layers\.2\.input_layernorm\.weight, .*, …"
    ):
        load(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder):
    rewrite(folder, model__layers__1__self_attn__k_proj__weight=torch.ones(8, 48))

    with pytest.raises(CheckpointError, match=r"k_proj\.weight has shape \[8, 48\]; .* ask for \[32, 48\]"):
        load(folder)


def test_a_head_beside_a_tied_embedding_and_stored_angles_are_passed_over(tmp_path):
    folder = write_tiny_checkpoint(tmp_path, "llama", is_tied=True, with_tokenizer=False)
    before = logits(load(folder))
    rewrite(
        folder,
        lm_head__weight=torch.ones(264, 48),
        model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8),
    )

    assert torch.equal(logits(load(folder)), before)


def test_shards_load_like_one_file(tmp_path):
    whole = write_tiny_checkpoint(tmp_path / "whole", "qwen3", with_tokenizer=False)
    tensors = load_file(whole / "model.safetensors")
    parts = tmp_path / "parts"
    parts.mkdir()
    names = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file_name in set(names.values()):
        save_file({n: tensors[n] for n, holder in names.items() if holder == file_name}, parts / file_name)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (parts / "config.json").write_text((whole / "config.json").read_text())

    assert torch.equal(logits(load(parts)), logits(load(whole)))


def write_dequantised(path, folder, **changes: object) -> None:
    """A safetensors checkpoint with the weights of a tiny GGUF file, by the gguf package alone."""
    size, family = GGUF_SIZES, path.name.split("-")[1]
    state = dequantised_state(path, size["head"])
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    values = {
        "model_type": family,
        "vocab_size": size["vocab"],
        "hidden_size": size["model"],
        "intermediate_size": size["ffn"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "head_dim": size["head"],
        "max_position_embeddings": MAX_CONTEXT,
        "rms_norm_eps": read_spec(path).norm_eps,
        "tie_word_embeddings": "lm_head.weight" not in state,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("tensor_type", TENSOR_TYPES)
def test_a_gguf_model_computes_what_its_dequantised_weights_compute(tmp_path, tensor_type):
    path = write_tiny_gguf(tmp_path, tensor_type, is_tied=tensor_type == "Q4_1")
    write_dequantised(path, tmp_path / "hf")

    assert torch.equal(logits(load(path)), logits(load(tmp_path / "hf")))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_model_computes_what_transformers_computes_with_its_weights(tmp_path, architecture):
    path = write_tiny_gguf(tmp_path, "Q5_1", architecture=architecture)
    write_dequantised(path, tmp_path / "hf", architectures=None)

    expected = oracle_logits(oracle_model(tmp_path / "hf"), IDS)
    torch.testing.assert_close(logits(load(path)), expected, atol=1e-4, rtol=1e-5)


def test_rope_factors_of_a_gguf_file_are_llama3_scaling(tmp_path):
    rope = {**ROPE_LLAMA3, "original_max_position_embeddings": 256}
    write_dequantised(write_tiny_gguf(tmp_path, "F16"), tmp_path / "hf", rope_parameters=rope)
    scaled = oracle_model(tmp_path / "hf").model.rotary_emb.inv_freq
    plain = 10_000.0 ** (-torch.arange(0, 64, 2) / 64)
    path = write_tiny_gguf(tmp_path, "F16", rope_factors=tuple((plain / scaled).tolist()))

    expected = oracle_logits(oracle_model(tmp_path / "hf"), IDS)
    torch.testing.assert_close(logits(load(path)), expected, atol=1e-4, rtol=1e-5)


def test_an_unsupported_gguf_type_is_refused_before_anything_is_loaded(tmp_path):
    reports = []

    with pytest.raises(CheckpointError, match="is of type TQ1_0"):
        load(
            write_tiny_gguf(tmp_path, "TQ1_0"), on_progress=lambda done, total: reports.append((done, total))
        )

    assert reports == []


@needs_native
def test_a_tensor_with_a_scale_that_is_no_number_is_named(tmp_path):
    path = write_tiny_gguf(tmp_path, "Q4_1", is_tied=True)
    damaged = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == "blk.1.ffn_down.weight")
    with path.open("r+b") as file:
        file.seek(damaged.data_offset)
        file.write(b"\x00\x7e")  # a NaN as float16: the first group's scale

    with pytest.raises(CheckpointError, match=r"down_proj.*a scale of its weights is infinite or no number"):
        load_native(path, LEVELS[0])


def test_a_gguf_file_that_lacks_a_tensor_says_which(tmp_path):
    path = write_tiny_gguf(tmp_path, "F32", skip=("blk.1.ffn_up.weight",))

    with pytest.raises(CheckpointError, match=r"missing 1: model\.layers\.1\.mlp\.up_proj\.weight"):
        load(path)


def test_rounded_projections_take_every_tensor_in_its_rows(tmp_path):
    folder = write_tiny_checkpoint(tmp_path, "llama", with_tokenizer=False, vocab_size=272)
    kit = LayerKit.rounded(REFERENCE, round_rows, torch.device("cpu"), torch.bfloat16)
    rounded = load_decoder(folder, read_spec(folder), kit, lambda _done, _total: None)
    plain = load(folder, torch.bfloat16)

    for layer in range(2):
        own = rounded.layers[layer].attention.qkv
        values = own.codes.float() * own.worth
        error = (values - plain.layers[layer].attention.qkv.weight.float()).abs()
        assert (error <= values.abs() / 14 + own.worth / 100).all()
    assert rounded.weight_bytes < 0.7 * plain.weight_bytes
    found, expected = (torch.log_softmax(logits(decoder), -1) for decoder in (rounded, plain))
    assert (found - expected).abs().mean() < 0.3
