import pytest
from pydantic import ValidationError

from server.schemas.common import MAX_STOP_CHARS, GenerationBody, answers_with


def refused(**fields: object) -> dict:
    """The first complaint about a body with these fields."""
    with pytest.raises(ValidationError) as caught:
        GenerationBody.model_validate({"model": "m", **fields})
    return caught.value.errors()[0]


def accepted(**fields: object) -> GenerationBody:
    return GenerationBody.model_validate({"model": "m", **fields})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 1.0),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("n", "2"),
        ("n", 1.0),
        ("max_tokens", 0),
        ("max_tokens", 2**40),
        ("seed", 2**63),
        ("seed", 1.5),
        ("stream", "yes"),
        ("stream", 1),
        ("stop", 7),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 5),
        ("stop", "x" * (MAX_STOP_CHARS + 1)),
        ("stop", "\ud800"),
        ("ignore_eos", "no"),
        ("user", 5),
        ("model", None),
        ("model", 5),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_a_wrong_value_is_refused_at_its_field(name, value):
    assert refused(**{name: value})["loc"][0] == name


@pytest.mark.parametrize(
    "name", ["n", "stream", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "user"]
)
def test_null_means_left_out(name):
    assert getattr(accepted(**{name: None}), name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 2),
        ("top_p", 0),
        ("top_p", 1),
        ("top_k", -1),
        ("n", 128),
        ("seed", -(2**63)),
        ("stop", ["a"] * 4),
    ],
)
def test_the_limits_themselves_are_allowed(name, value):
    assert getattr(accepted(**{name: value}), name) == value


def test_out_of_range_names_the_limit():
    assert "2" in refused(temperature=3)["msg"]


@pytest.mark.parametrize("value", [0.5, -1, "x", True, [0]])
def test_a_penalty_is_not_supported_yet(value):
    complaint = refused(presence_penalty=value)

    assert complaint["type"] == "unsupported_parameter"
    assert complaint["ctx"]["param"] == "presence_penalty"


@pytest.mark.parametrize(
    ("name", "value"),
    [("presence_penalty", 0), ("frequency_penalty", 0.0), ("logit_bias", {}), ("logit_bias", None)],
)
def test_a_value_that_asks_for_nothing_passes(name, value):
    assert accepted(**{name: value}).model == "m"


def test_false_is_no_zero_penalty():
    assert refused(frequency_penalty=False)["type"] == "unsupported_parameter"


def test_an_unknown_field_is_refused_by_name():
    complaint = refused(foo=1)

    assert (complaint["type"], complaint["loc"]) == ("extra_forbidden", ("foo",))


def test_stream_options_need_a_stream():
    assert refused(stream_options={})["ctx"]["param"] == "stream_options"
    assert accepted(stream=True, stream_options={"include_usage": True}).stream_options.include_usage


def test_an_unknown_stream_option_is_refused():
    assert refused(stream=True, stream_options={"x": 1})["loc"] == ("stream_options", "x")


def test_only_routes_that_stream_document_events():
    assert 200 not in answers_with()
    assert 200 in answers_with(GenerationBody, events=GenerationBody)
