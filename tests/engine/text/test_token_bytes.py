import json

import pytest
import tokenizers
from tokenizers import decoders, models

from engine.errors import CheckpointError
from engine.text.token_bytes import TokenBytes, byte_characters


def backend_of(tokens: list[str], decoder: decoders.Decoder | None) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    if decoder is not None:
        backend.decoder = decoder
    return backend


def sentencepiece_decoder(*more: decoders.Decoder) -> decoders.Decoder:
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more])


def test_every_byte_has_a_printable_character_of_its_own() -> None:
    characters = byte_characters()

    assert len(set(characters)) == 256
    assert all(character.isprintable() and not character.isspace() for character in characters)
    assert (characters[ord(" ")], characters[ord("A")], characters[0]) == ("Ġ", "A", "Ā")


def test_a_byte_level_token_is_the_bytes_it_spells() -> None:
    token_bytes = TokenBytes.of_backend(backend_of(["Ġhi", "ðŁĻ", "Ĥ"], decoders.ByteLevel()))

    assert [token_bytes[token_id] for token_id in range(3)] == [b" hi", b"\xf0\x9f\x99", b"\x82"]


def test_a_byte_level_token_outside_the_alphabet_stands_for_itself() -> None:
    token_bytes = TokenBytes.of_backend(backend_of(["<end▁of>", "a b"], decoders.ByteLevel()))

    assert [token_bytes[token_id] for token_id in range(2)] == ["<end▁of>".encode(), b"a b"]


def test_an_added_token_is_its_own_text_even_within_the_byte_alphabet() -> None:
    backend = backend_of(["é"], decoders.ByteLevel())
    backend.add_tokens(["é"])

    assert TokenBytes.of_backend(backend)[0] == "é".encode()


def test_a_sentencepiece_token_has_spaces_for_marks_and_bytes_for_byte_tokens() -> None:
    backend = backend_of(["▁hi▁", "<0xE2>", "<0xZZ>", "漢"], sentencepiece_decoder())

    token_bytes = TokenBytes.of_backend(backend)

    assert [token_bytes[index] for index in range(4)] == [b" hi ", b"\xe2", b"<0xZZ>", "漢".encode()]


def test_an_id_without_a_token_has_no_bytes() -> None:
    assert TokenBytes.of_backend(backend_of(["a"], decoders.ByteLevel()))[7] == b""


@pytest.mark.parametrize(
    ("decoder", "is_stripped"),
    [
        pytest.param(sentencepiece_decoder(), False, id="no strip"),
        pytest.param(sentencepiece_decoder(decoders.Strip(" ", 1, 0)), True, id="strip"),
        pytest.param(decoders.Metaspace(prepend_scheme="always"), True, id="metaspace"),
        pytest.param(decoders.Metaspace(prepend_scheme="never"), False, id="metaspace without prefix"),
        pytest.param(decoders.ByteLevel(), False, id="byte level"),
    ],
)
def test_the_space_in_front_of_a_text_is_stripped_where_the_decoder_strips_it(
    decoder: decoders.Decoder, is_stripped: bool
) -> None:
    assert TokenBytes.of_backend(backend_of(["a"], decoder)).strips_space is is_stripped


@pytest.mark.parametrize(
    "decoder",
    [
        pytest.param(None, id="none"),
        pytest.param(decoders.WordPiece(), id="word pieces"),
        pytest.param(decoders.Sequence([decoders.ByteLevel(), decoders.ByteFallback()]), id="two kinds"),
        pytest.param(sentencepiece_decoder(decoders.Strip(" ", 2, 0)), id="two spaces stripped"),
        pytest.param(
            decoders.Sequence([decoders.Replace("x", " "), decoders.ByteFallback()]), id="another mark"
        ),
    ],
)
def test_a_decoder_that_bytes_cannot_stand_for_is_refused(decoder: decoders.Decoder | None) -> None:
    with pytest.raises(CheckpointError, match=r"decoder is .*; supported are ByteLevel"):
        TokenBytes.of_backend(backend_of(["a"], decoder))


def test_a_nested_sequence_counts_as_its_parts() -> None:
    nested = decoders.Sequence([decoders.Sequence([decoders.ByteLevel()])])
    assert json.loads(nested.__getstate__())["type"] == "Sequence"

    assert TokenBytes.of_backend(backend_of(["Ġa"], nested))[0] == b" a"
