from engine.text.token_logprob import TokenLogprob, name_tokens
from engine.token_scores import TokenScores
from tests.support.byte_tokenizer import ByteTokenizer
from tests.support.some_scores import some_scores


def test_a_token_is_named_with_its_rank_and_its_alternatives():
    scores = TokenScores(logprobs=(-2.0,), ranks=(3,), top_ids=(98, 99), top_logprobs=(-0.5, -1.0))
    (named,) = name_tokens(ByteTokenizer(), [97], scores)

    assert named == TokenLogprob(
        token_id=97,
        text="a",
        token_bytes=b"a",
        logprob=-2.0,
        rank=3,
        top=(
            TokenLogprob(token_id=98, text="b", token_bytes=b"b", logprob=-0.5, rank=1),
            TokenLogprob(token_id=99, text="c", token_bytes=b"c", logprob=-1.0, rank=2),
        ),
    )


def test_a_part_of_a_character_shows_as_a_replacement_and_has_exact_bytes():
    (named,) = name_tokens(ByteTokenizer(), [0xE2], some_scores(-1.0))

    assert (named.text, named.token_bytes) == ("\ufffd", b"\xe2")
