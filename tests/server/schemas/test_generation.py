import pytest
from pydantic import ValidationError

from server.schemas.generation import GenerationBody


def accepted(**fields: object) -> GenerationBody:
    return GenerationBody.model_validate({"model": "m", **fields})


def refused(**fields: object) -> dict:
    with pytest.raises(ValidationError) as caught:
        accepted(**fields)
    return caught.value.errors()[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p", 1.1),
        ("typical_p", 0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", False),
        ("repetition_penalty", 0),
        ("dry_base", 0.5),
        ("dry_multiplier", -1),
        ("dry_sequence_breakers", [""]),
        ("xtc_probability", 2),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"5": "x"}),
        ("logit_bias", [5]),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [-1]),
        ("bad_words", "x"),
        ("min_tokens", -1),
        ("stop_token_ids", ["x"]),
        ("truncate_prompt_tokens", 0),
        ("priority", 1.5),
        ("priority", 101),
        ("prompt_logprobs", -1),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_at_its_field(name, value):
    assert refused(**{name: value})["loc"][0] == name


@pytest.mark.parametrize("key", ["x", "", "-1", "1.5", "٣", "1" * 11])
def test_a_bias_is_for_a_token_id(key):
    complaint = refused(logit_bias={key: 1})

    assert complaint["loc"][0] == "logit_bias"
    assert "token ids" in complaint["msg"]


@pytest.mark.parametrize("name", sorted(set(GenerationBody.model_fields) - {"model"}))
def test_null_means_left_out(name):
    assert getattr(accepted(**{name: None}), name) is None


def test_usage_in_every_chunk_is_part_of_the_usage():
    alone = accepted(stream=True, stream_options={"continuous_usage_stats": True})
    both = accepted(stream=True, stream_options={"continuous_usage_stats": True, "include_usage": True})

    assert (alone.has_running_usage, both.has_running_usage) == (False, True)


def test_the_least_must_not_be_above_the_most():
    assert refused(min_tokens=5, max_tokens=4)["ctx"]["param"] == "min_tokens"
