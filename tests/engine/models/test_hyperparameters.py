import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.models.hyperparameters import Hyperparameters


def values(**given: object) -> Hyperparameters:
    return Hyperparameters(origin=Path("config.json"), values=given)


def test_null_counts_as_absent():
    config = values(head_dim=None)

    assert not config.has("head_dim")
    assert config.integer("head_dim", 7) == 7


READERS: dict[str, Callable[[Hyperparameters], object]] = {
    "integer": lambda config: config.integer("key"),
    "number": lambda config: config.number("key"),
    "flag": lambda config: config.flag("key", False),
    "texts": lambda config: config.texts("key"),
    "token_ids": lambda config: config.token_ids("key"),
    "section": lambda config: config.section("key"),
}


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("integer", "12"),
        ("integer", 0),
        ("integer", -1),
        ("integer", 1.5),
        ("integer", True),
        ("number", "1e-5"),
        ("number", 0.0),
        ("number", True),
        ("flag", 1),
        ("flag", "false"),
        ("texts", "full_attention"),
        ("texts", [1]),
        ("token_ids", "2"),
        ("token_ids", [2, None]),
        ("token_ids", -1),
        ("section", []),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(reader, value):
    with pytest.raises(CheckpointError, match=r"config\.json: key is ") as caught:
        READERS[reader](values(key=value))

    assert repr(value) in caught.value.message


@pytest.mark.parametrize("reader", ["integer", "number"])
def test_a_number_without_a_default_must_be_there(reader):
    with pytest.raises(CheckpointError, match=r"config\.json: key is missing"):
        READERS[reader](values())


def test_token_ids_may_be_one_or_several():
    assert values(eos=2).token_ids("eos") == (2,)
    assert values(eos=[2, 5]).token_ids("eos") == (2, 5)
    assert values().token_ids("eos") == ()


def test_the_ends_of_a_sequence_unite_both_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 7]}))

    assert Hyperparameters.load(tmp_path).token_ids("eos_token_ids") == (7, 9)


def test_a_folder_without_config_says_what_it_needs(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json does not exist; a model folder needs"):
        Hyperparameters.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '"llama"'])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(CheckpointError, match=r"config\.json"):
        Hyperparameters.load(tmp_path)
