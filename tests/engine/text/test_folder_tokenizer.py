import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from engine.errors import CheckpointError
from engine.text.folder_tokenizer import load_folder_tokenizer
from engine.text.tokenizer import Tokenizer
from tests.support.awkward_texts import AWKWARD_TEXTS
from tests.support.tiny_tokenizer import BOS_ID, EOS_ID, IM_END_ID, write_tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_tokenizer(tmp_path)
    return tmp_path


def change(file: Path, **fields: object) -> None:
    """Set fields of a JSON file, which may not be there yet; None takes one out."""
    settings = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    settings |= fields
    settings = {name: value for name, value in settings.items() if value is not None}
    file.write_text(json.dumps(settings), "utf-8")


@pytest.mark.parametrize("adds", [{}, {"add_bos_token": True, "add_eos_token": True}])
def test_a_folder_gives_the_ids_of_transformers(adds: dict[str, bool], folder: Path) -> None:
    change(folder / "tokenizer_config.json", **adds)
    tokenizer, oracle = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)

    for is_added in (True, False):
        ours = [tokenizer.encode(text, add_special_tokens=is_added) for text in AWKWARD_TEXTS.values()]
        assert ours == [oracle.encode(text, add_special_tokens=is_added) for text in AWKWARD_TEXTS.values()]


def test_a_post_processor_in_the_file_says_what_is_added(folder: Path) -> None:
    special = {"<|bos|>": {"id": "<|bos|>", "ids": [BOS_ID], "tokens": ["<|bos|>"]}}
    pieces = [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}
    change(folder / "tokenizer.json", post_processor=processor)
    tokenizer = Tokenizer.load(folder)

    assert tokenizer.encode("a") == [BOS_ID, ord("a")]
    assert tokenizer.encode("a", add_special_tokens=False) == [ord("a")]


def test_truncation_and_padding_in_the_file_are_not_for_prompts(folder: Path) -> None:
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    truncation = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    change(folder / "tokenizer.json", truncation=truncation, padding=padding)
    tokenizer = Tokenizer.load(folder)

    assert tokenizer.encode("abcdef") == list(b"abcdef")
    assert tokenizer.encode("a") == [ord("a")]


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        pytest.param(None, None, {EOS_ID}, id="the tokenizer's own"),
        pytest.param(None, [EOS_ID, IM_END_ID], {EOS_ID, IM_END_ID}, id="generation_config.json"),
        pytest.param(IM_END_ID, None, {IM_END_ID}, id="config.json"),
        pytest.param(7, [IM_END_ID], {7, IM_END_ID}, id="both"),
    ],
)
def test_what_ends_a_sequence_is_what_the_configurations_say(
    config: object, generation: object, expected: set[int], folder: Path
) -> None:
    change(folder / "config.json", eos_token_id=config)
    change(folder / "generation_config.json", eos_token_id=generation)

    assert Tokenizer.load(folder).eos_ids == expected


def test_tokens_that_only_the_configuration_declares_are_added(folder: Path) -> None:
    declared = {
        "260": {"content": "<|tool|>", "special": True},
        "261": {"content": "<note>", "special": False},
        "256": {"content": "<|bos|>", "special": True},
    }
    change(folder / "tokenizer_config.json", added_tokens_decoder=declared)
    tokenizer = Tokenizer.load(folder)

    assert tokenizer.encode("<|tool|><note>") == [260, 261]
    assert tokenizer.special_ids == {256, 257, 258, 259, 260}


def test_a_declared_token_that_cannot_have_its_id_is_refused(folder: Path) -> None:
    change(folder / "tokenizer_config.json", added_tokens_decoder={"999": {"content": "<|tool|>"}})

    with pytest.raises(
        CheckpointError, match=r"'<\|tool\|>' the id 999, but in tokenizer\.json it becomes 260"
    ):
        load_folder_tokenizer(folder)


def test_special_tokens_may_be_objects_or_stand_in_a_file_of_their_own(folder: Path) -> None:
    change(
        folder / "tokenizer_config.json", bos_token={"content": "<|bos|>", "lstrip": False}, eos_token=None
    )
    change(folder / "special_tokens_map.json", eos_token="<|im_end|>", bos_token="other")

    parts = load_folder_tokenizer(folder)

    assert parts.special_tokens == {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}


def test_a_template_in_a_file_of_its_own_goes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("from the file", "utf-8")

    assert load_folder_tokenizer(folder).chat_template == "from the file"


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        pytest.param(
            [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}], "d", id="default"
        ),
        pytest.param([{"name": "rag", "template": "r"}], None, id="none is the default"),
        pytest.param(None, "old", id="chat_template.json"),
    ],
)
def test_of_several_templates_the_default_is_taken(
    templates: object, expected: str | None, folder: Path
) -> None:
    change(folder / "tokenizer_config.json", chat_template=templates)
    change(folder / "chat_template.json", chat_template="old")

    assert load_folder_tokenizer(folder).chat_template == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("special_tokens_map.json", "[]"),
        ("generation_config.json", "no"),
    ],
)
def test_a_malformed_file_is_named(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content, "utf-8")

    with pytest.raises(CheckpointError, match=name):
        load_folder_tokenizer(folder)


def test_tokenizer_json_is_enough(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.load(folder)

    assert tokenizer.encode("a<|eos|>") == [ord("a"), EOS_ID]
    assert not tokenizer.has_chat_template
