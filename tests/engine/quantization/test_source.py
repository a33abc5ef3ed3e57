import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import CheckpointError, ConfigError
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from engine.models.safetensors_file import SafetensorsFiles
from engine.models.weights import as_it_is
from engine.quantization.groups import INT4, INT8
from engine.quantization.source import QuantizedSource, quantizing
from tests.support.layer_kit import cpu_kit
from tests.support.native import LEVELS, needs_native
from tests.support.native_models import load_native, native_run
from tests.support.pack_by_hand import RingRun
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf

IDS = list(range(40, 60))
GATE = "model.layers.0.mlp.gate_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path):
    return write_tiny_checkpoint(tmp_path, hidden_size=64, with_tokenizer=False, dtype=torch.bfloat16)


def values(folder, name, quantization):
    destination = torch.empty(load_file(folder / "model.safetensors")[name].shape)
    quantizing(quantization, folder)(SafetensorsFiles.open(folder)).copy(name, destination)
    return destination


def load(folder, quantization):
    return load_decoder(
        folder,
        read_spec(folder),
        cpu_kit(torch.float32),
        lambda _done, _total: None,
        quantizing(quantization, folder),
    )


@pytest.mark.parametrize(("quantization", "layout"), [("int8", INT8), ("int4", INT4)])
def test_projections_get_the_values_of_the_format_and_tables_those_of_8_bits(folder, quantization, layout):
    stored = load_file(folder / "model.safetensors")

    assert torch.equal(values(folder, GATE, quantization), layout.quantise(stored[GATE].float()).values())
    assert torch.equal(
        values(folder, EMBEDDING, quantization), INT8.quantise(stored[EMBEDDING].float()).values()
    )


def test_norms_stay_as_they_are(folder):
    name = "model.layers.0.input_layernorm.weight"

    assert torch.equal(values(folder, name, "int4"), load_file(folder / "model.safetensors")[name].float())


def test_a_matrix_longer_than_a_slice_is_whole(tmp_path):
    weight = torch.randn(4100, 64)
    save_file({"w": weight}, tmp_path / "model.safetensors")
    source = QuantizedSource.over(SafetensorsFiles.open(tmp_path), "int8")

    assert len(source.stored("w").stored) == 4100
    assert torch.equal(values(tmp_path, "w", "int8"), INT8.quantise(weight).values())


def test_no_quantization_is_the_checkpoint_itself(folder):
    source = SafetensorsFiles.open(folder)

    assert quantizing("none", folder)(source) is source


def test_rows_that_are_not_whole_groups_are_refused_before_anything_is_loaded(tmp_path):
    folder = write_tiny_checkpoint(tmp_path, hidden_size=48, with_tokenizer=False)

    with pytest.raises(CheckpointError, match=r"rows of 48; --quantization int4 needs multiples of 32"):
        load(folder, "int4")


def test_a_gguf_file_keeps_its_own_types(tmp_path):
    with pytest.raises(ConfigError, match=r"quantization is 'int8', but .*\.gguf is a GGUF file"):
        quantizing("int8", write_tiny_gguf(tmp_path, "Q4_1"))


def test_a_value_that_is_not_finite_is_refused_with_its_tensor(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[GATE][3, 5] = float("inf")
    save_file(tensors, path)

    with pytest.raises(CheckpointError, match="gate_proj"):
        load(folder, "int8")


@needs_native
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_native_kernels_compute_what_the_reference_computes_with_the_same_codes(folder, quantization):
    reference = RingRun(load(folder, quantization), block_size=4, max_chunk=len(IDS))
    native = native_run(
        load_native(folder, LEVELS[-1], quantizing(quantization, folder)), block_size=4, max_chunk=len(IDS)
    )

    found, expected = native.step([(0, IDS)]), reference.step([(0, IDS)])
    bound = 0.02 if LEVELS[-1] == "amx" else 0.01  # there weights and activations are bfloat16
    assert (found - expected).abs().mean() < bound * expected.abs().mean()


@needs_native
def test_4_bit_weights_take_5_bits_and_8_bit_ones_8_5_and_an_output_4_bytes(folder):
    shapes = {name: tensor.shape for name, tensor in load_file(folder / "model.safetensors").items()}
    decoder = load_native(folder, LEVELS[-1], quantizing("int4", folder))

    # 32 is the outputs of a panel, to which rows are rounded up.
    outputs = {name: -(-shape[0] // 32) * 32 for name, shape in shapes.items() if len(shape) == 2}
    padded = {name: size * shapes[name][1] for name, size in outputs.items()}
    tables = sum(size for name, size in padded.items() if "layers" not in name)
    norms = sum(shape[0] * 4 for shape in shapes.values() if len(shape) == 1)
    exponents = sum(outputs.values()) * 4
    assert (
        decoder.weight_bytes == tables * 8.5 / 8 + (sum(padded.values()) - tables) * 5 / 8 + norms + exponents
    )


def test_what_projections_round_themselves_is_read_as_it_is(tmp_path):
    assert quantizing("fp8", tmp_path) is as_it_is
    with pytest.raises(ConfigError, match="is a GGUF file"):
        quantizing("fp8", tmp_path / "model.gguf")
