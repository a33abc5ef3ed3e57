import pytest
from pydantic import ValidationError

from server.schemas.generation import GenerationBody
from server.translate.sampling import Wanted, to_sampling
from tests.support.fake_engine import FakeTokenizer


def sampling(**fields: object):
    body = GenerationBody.model_validate({"model": "m", **fields})
    return to_sampling(body, Wanted(max_tokens=7, seed=5), FakeTokenizer({}, frozenset()))


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_what_the_body_leaves_open_has_openais_defaults():
    params = sampling()

    assert (params.temperature, params.top_p, params.top_k, params.stop) == (1.0, 1.0, 0, ())
    assert (params.max_tokens, params.seed, params.ignore_eos) == (7, 5, False)
    assert (params.skip_special_tokens, params.spaces_between_special_tokens) == (True, True)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("temperature", 0, "temperature", 0.0),
        ("top_p", 0.5, "top_p", 0.5),
        ("top_k", 3, "top_k", 3),
        ("top_k", -1, "top_k", 0),
        ("min_p", 0.1, "min_p", 0.1),
        ("typical_p", 0.9, "typical_p", 0.9),
        ("presence_penalty", -2, "presence_penalty", -2),
        ("frequency_penalty", 2, "frequency_penalty", 2),
        ("repetition_penalty", 1.3, "repetition_penalty", 1.3),
        ("dry_multiplier", 0.8, "dry_multiplier", 0.8),
        ("dry_base", 2, "dry_base", 2),
        ("dry_allowed_length", 4, "dry_allowed_length", 4),
        ("dry_penalty_last_n", -1, "dry_range", 0),
        ("dry_penalty_last_n", 9, "dry_range", 9),
        ("xtc_probability", 0.5, "xtc_probability", 0.5),
        ("xtc_threshold", 0.2, "xtc_threshold", 0.2),
        ("logit_bias", {"9": 1, "7": -3}, "logit_bias", ((7, -3), (9, 1))),
        ("logit_bias", {"7": 1, "07": 2}, "logit_bias", ((7, 2),)),
        ("allowed_token_ids", [9, 7, 9], "allowed_ids", (7, 9)),
        ("bad_words", ["ab"], "bad_words_ids", (ids("ab"), ids(" ab"))),
        ("bad_words", [" ab"], "bad_words_ids", (ids(" ab"),)),
        ("min_tokens", 2, "min_tokens", 2),
        ("stop", "x", "stop", ("x",)),
        ("stop", ["b", "a"], "stop", ("b", "a")),
        ("stop_token_ids", [5], "stop_token_ids", (5,)),
        ("ignore_eos", True, "ignore_eos", True),
        ("include_stop_str_in_output", True, "include_stop", True),
        ("skip_special_tokens", False, "skip_special_tokens", False),
        ("spaces_between_special_tokens", False, "spaces_between_special_tokens", False),
        ("seed", 9, "seed", 9),
        ("seed", 0, "seed", 0),
        ("seed", -1, "seed", 2**64 - 1),
    ],
)
def test_what_the_body_says_reaches_the_engine(name, value, field, expected):
    assert getattr(sampling(**{name: value}), field) == expected


def test_top_p_of_zero_keeps_the_most_probable_token():
    assert 0 < sampling(top_p=0).top_p < 1e-6


def test_dry_stops_at_the_usual_places_unless_told_otherwise():
    told = sampling(dry_multiplier=1, dry_sequence_breakers=["ab"])

    assert sampling(dry_multiplier=1).dry_sequence_breaker_ids == (ids("\n"), ids(":"), ids('"'), ids("*"))
    assert told.dry_sequence_breaker_ids == (ids("ab"),)


def test_nothing_is_encoded_while_dry_is_off():
    assert sampling(dry_sequence_breakers=["ab"]).dry_sequence_breaker_ids == ()


def test_what_peers_parameters_leave_open_has_their_defaults():
    params = sampling(dry_multiplier=0.8, xtc_probability=0.5)

    assert (params.dry_base, params.dry_allowed_length, params.dry_range) == (1.75, 2, 0)
    assert params.dry_sequence_breaker_ids == tuple(map(ids, ("\n", ":", '"', "*")))
    assert params.xtc_threshold == 0.1


def test_dry_that_looks_back_over_nothing_is_off():
    assert sampling(dry_multiplier=0.8, dry_penalty_last_n=0).dry_multiplier == 0.0
    assert sampling(dry_multiplier=0.8, dry_penalty_last_n=-1).dry_multiplier == 0.8


def limits_of(name: str) -> list[float]:
    """The ends of the range that the schema allows."""
    bounds = GenerationBody.model_json_schema()["properties"][name]["anyOf"]
    return [value for schema in bounds for key, value in schema.items() if key in ("minimum", "maximum")]


NUMBERS = [
    name
    for name, schema in GenerationBody.model_json_schema()["properties"].items()
    if any({"minimum", "maximum"} & set(kind) for kind in schema.get("anyOf", ())) and name != "n"
]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_engine_takes_every_number_that_the_schema_lets_pass(name):
    assert limits_of(name)
    for value in limits_of(name):
        least = value if name == "min_tokens" else 1
        body = GenerationBody.model_validate({"model": "m", name: value})
        to_sampling(body, Wanted(max_tokens=max(7, least), seed=5), FakeTokenizer({}, frozenset()))


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_token_ids": list(range(256))},
        {"logit_bias": {str(key): 1 for key in range(1024)}},
        {"bad_words": [f"word {number}" for number in range(256)]},
        {"dry_multiplier": 1, "dry_sequence_breakers": [f"{number}" for number in range(256)]},
    ],
    ids=lambda fields: next(reversed(fields)),
)
def test_the_engine_takes_the_longest_lists_that_the_schema_lets_pass(fields):
    sampling(**fields)
    longer = {
        name: {**value, "2000": 1} if isinstance(value, dict) else [*value, type(value[0])(7)]
        for name, value in fields.items()
        if name != "dry_multiplier"
    }

    with pytest.raises(ValidationError):
        sampling(**longer)
