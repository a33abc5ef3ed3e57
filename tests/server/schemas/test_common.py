import pytest
from pydantic import ValidationError

from server.contract.fields import refused as refused_field
from server.schemas.common import MAX_STOP_CHARS, WireModel, answers_with, unknown_fields
from server.schemas.generation import GenerationBody


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
        ("max_tokens", -1),
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


class Inner(WireModel):
    """A piece with a refused field."""

    FIELDS = (refused_field("inner.sound", 1, "No sound.", neutral=(0,)),)
    PREFIX = "inner."

    x: int = 0


class Outer(WireModel):
    """A piece with pieces in it."""

    inner: Inner | None = None
    inners: list[Inner] | None = None


@pytest.mark.parametrize("value", [1, "x", True, False, 0.0])
def test_a_refused_field_is_named_with_the_reason(value):
    with pytest.raises(ValidationError) as caught:
        Inner.model_validate({"sound": value})

    complaint = caught.value.errors()[0]
    assert (complaint["type"], complaint["ctx"]["param"]) == ("unsupported_parameter", "sound")
    assert "No sound." in complaint["msg"]


@pytest.mark.parametrize("value", [None, 0])
def test_a_refused_field_passes_with_a_value_that_asks_for_nothing(value):
    assert not Inner.model_validate({"sound": value}).model_extra


def test_unknown_fields_are_found_wherever_they_are():
    body = Outer.model_validate({"a": 1, "inner": {"b": 1}, "inners": [{}, {"c": 1, "x": 2}]})

    assert list(unknown_fields(body)) == [("a",), ("inner", "b"), ("inners", 1, "c")]


def test_known_fields_are_not_unknown():
    assert list(unknown_fields(accepted(stream=True, stream_options={"include_usage": True}))) == []


def test_stream_options_need_a_stream():
    assert refused(stream_options={})["ctx"]["param"] == "stream_options"
    assert accepted(stream=True, stream_options={"include_usage": True}).stream_options.include_usage


def test_only_routes_that_stream_document_events():
    assert 200 not in answers_with()
    assert 200 in answers_with(events=GenerationBody)
