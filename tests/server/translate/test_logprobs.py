import json
import math

import pytest

from engine import TokenLogprob
from server.translate.logprobs import (
    bounded_logprob,
    chat_logprob,
    chat_logprob_json,
    completion_logprobs,
    prompt_logprobs,
    spelled,
)
from tests.support.fake_engine import scored


def token(token_bytes: bytes, logprob: float, **fields: object) -> TokenLogprob:
    text = token_bytes.decode("utf-8", "replace")
    return TokenLogprob(token_id=1, text=text, token_bytes=token_bytes, logprob=logprob, **fields)


def test_no_probability_is_a_number_on_the_wire():
    assert bounded_logprob(-math.inf) == -9999.0
    assert bounded_logprob(-1.5) == -1.5


def test_a_chat_entry_has_bytes_and_alternatives():
    entry = chat_logprob(scored("é", -2.0, 1))

    assert (entry["token"], entry["bytes"], entry["logprob"]) == ("é", [195, 169], -2.0)
    assert entry["top_logprobs"] == [{"token": "A", "logprob": -0.125, "bytes": [65]}]


@pytest.mark.parametrize(
    "told",
    [
        scored("é", -2.0, 1),
        token(b"\xe2\x80", -math.inf),
        token(b'"\n\\', -1e-7, top=(token(b"", -0.1), token("\u2028".encode(), -3.5))),
    ],
    ids=["alternative", "part of a character", "escapes"],
)
def test_an_entry_written_as_json_is_the_entry(told):
    written = chat_logprob_json(told)

    assert json.loads(written) == chat_logprob(told)
    assert written.isascii()


def test_the_chosen_token_stands_behind_better_ones():
    told = completion_logprobs([scored("x", -2.0, 2)], [0], num_top=2)

    assert told["top_logprobs"] == [{"A": -0.125, "B": -0.25, "x": -2.0}]


def test_a_chosen_token_that_is_among_the_best_is_told_once():
    chosen = token(b"A", -0.125, top=(token(b"A", -0.125), token(b"B", -3.0)))

    assert completion_logprobs([chosen], [0], num_top=2)["top_logprobs"] == [{"A": -0.125, "B": -3.0}]


def test_the_first_token_of_a_prompt_has_a_name_and_no_probability():
    told = completion_logprobs([None, scored("b", -1.0)], [0, 1], opening=b"a", num_top=1)

    assert told["tokens"] == ["a", "b"]
    assert told["token_logprobs"] == [None, -1.0]
    assert told["top_logprobs"] == [None, {"b": -1.0}]


def test_without_alternatives_there_is_no_list_of_them():
    assert completion_logprobs([scored("b", -1.0)], [0])["top_logprobs"] is None


def test_parts_of_characters_keep_different_names():
    assert spelled(b"\xe2\x80") == "bytes:\\xe2\\x80"
    assert spelled("é".encode()) == "é"


def test_scores_of_a_prompt_are_by_token_id():
    assert prompt_logprobs([None, scored("b", -1.0, 2)], 1) == [
        None,
        {
            "98": {"logprob": -1.0, "rank": 3, "decoded_token": "b"},
            "65": {"logprob": -0.125, "rank": 1, "decoded_token": "A"},
        },
    ]
