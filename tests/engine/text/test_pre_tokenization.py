import pytest
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence

from engine.errors import CheckpointError
from engine.text.pre_tokenization import PRE_TOKENIZATIONS, PreTokenization
from tests.support.awkward_texts import AWKWARD_TEXTS


def pieces(name: str, text: str) -> list[str]:
    """The pieces of a text whose bytes are all printable, but for its spaces."""
    cut = PreTokenization.named(name).to_backend()
    return [piece.replace("Ġ", " ") for piece, _ in cut.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["Don", "'t", " pay", " 1234", "/", "56"]),
        ("smollm", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "/", "5", "6"]),
        ("llama-bpe", ["Don", "'t", " pay", " ", "123", "4", "/", "56"]),
        ("qwen2", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "/", "5", "6"]),
        ("tekken", ["Don", "'t", " pay", " ", "1", "2", "3", "4", "/", "5", "6"]),
        ("default", ["Don", "'", "t", " pay", " ", "123", "4", "/", "56"]),
    ],
)
def test_each_family_cuts_words_and_digits_in_its_own_way(name: str, expected: list[str]) -> None:
    assert pieces(name, "Don't pay 1234/56") == expected


def test_tekken_cuts_where_small_letters_turn_to_capitals() -> None:
    assert pieces("tekken", "camelCase HTTPServer") == ["camel", "Case", " HTTPServer"]


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZATIONS))
def test_no_character_is_lost_between_pieces(name: str) -> None:
    text = "a  b   'S 12 !?...  x=1 (y) "

    assert "".join(pieces(name, text)) == text


@pytest.mark.parametrize(
    ("name", "published"),
    [
        pytest.param("gpt-2", [ByteLevel(add_prefix_space=False)], id="GPT-2"),
        pytest.param(
            "smollm", [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)], id="SmolLM2"
        ),
    ],
)
def test_a_cut_equals_the_one_in_the_published_tokenizer(name: str, published: list[PreTokenizer]) -> None:
    cut, oracle = PreTokenization.named(name).to_backend(), Sequence(published)

    for text in AWKWARD_TEXTS.values():
        ours = [piece for piece, _ in cut.pre_tokenize_str(text)]
        assert ours == [piece for piece, _ in oracle.pre_tokenize_str(text)]


def test_a_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(CheckpointError, match="pre is 3; supported are"):
        PreTokenization.named(3)
