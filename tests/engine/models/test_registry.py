import json

import pytest

from engine.errors import CheckpointError
from engine.models.registry import FAMILIES, family_named, read_spec
from tests.engine.models.test_llama import BASE
from tests.support.tiny_model import CONFIGS, write_tiny_checkpoint, write_tiny_gguf


def write_config(folder, **values: object):
    (folder / "config.json").write_text(json.dumps({**BASE, "sliding_window": 8, **values}))
    return folder


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_architecture_leads_to_its_family(tmp_path, family):
    spec = read_spec(write_config(tmp_path, architectures=[family.architecture]))

    assert spec.family == family.name
    assert family_named(spec.family) is family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_config_without_architecture_is_known_by_its_model_type(tmp_path, family):
    assert read_spec(write_config(tmp_path, model_type=family.name)).family == family.name


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"architectures": ["Gemma3ForCausalLM"]}, "Gemma3ForCausalLM"),
        ({"model_type": "phi3"}, "phi3"),
        ({"architectures": ["LlamaModel"], "model_type": "llama"}, "LlamaModel"),
        ({}, "None"),
    ],
)
def test_an_unsupported_architecture_is_refused_with_those_supported(tmp_path, values, named):
    with pytest.raises(CheckpointError) as caught:
        read_spec(write_config(tmp_path, **values))

    assert f"the architecture is {named}" in caught.value.message
    for family in FAMILIES:
        assert family.architecture in caught.value.message


def test_a_gguf_file_of_an_unsupported_architecture_is_refused_alike(tmp_path):
    path = write_tiny_gguf(tmp_path, "F32", architecture="gemma2")

    with pytest.raises(CheckpointError, match=r"the architecture is gemma2; supported are Llama"):
        read_spec(path)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        read_spec(tmp_path / "nowhere")


@pytest.mark.parametrize("family", CONFIGS)
def test_what_transformers_writes_is_read(tmp_path, family):
    write_tiny_checkpoint(tmp_path, family, is_tied=True, eos_ids=(257, 259), with_tokenizer=False)

    spec = read_spec(tmp_path)

    assert (spec.family, spec.has_tied_head, spec.eos_ids) == (family, True, (257, 259))
    assert spec.layer_windows == (None, None)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_weight_map_names_exactly_the_tensors_of_transformers(tmp_path, family):
    from safetensors import safe_open

    write_tiny_checkpoint(tmp_path, family, with_tokenizer=False)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = set(file.keys())

    assert set(family_named(family).weight_map(read_spec(tmp_path))) == names
