import pytest
from pydantic import ValidationError

from server.schemas.constraint import MAX_CONSTRAINT_CHARS, ConstrainedBody, depth_of

ONE_OF_EACH = {
    "response_format": {"type": "json_object"},
    "guided_json": {"type": "integer"},
    "guided_regex": "a+",
    "guided_choice": ["a"],
    "guided_grammar": 'start: "a"',
    "structured_outputs": {"regex": "a+"},
}


def read(**fields: object) -> ConstrainedBody:
    return ConstrainedBody.model_validate(fields)


def refused(**fields: object) -> dict:
    with pytest.raises(ValidationError) as caught:
        read(**fields)
    return caught.value.errors()[0]


@pytest.mark.parametrize("param", ONE_OF_EACH)
def test_a_constraint_is_known_by_its_field(param):
    assert read(**{param: ONE_OF_EACH[param]}).constraint_param == param


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"guided_decoding_backend": "auto"}]
)
def test_a_body_may_leave_its_answer_free(fields):
    assert read(**fields).constraint_param is None


@pytest.mark.parametrize("second", [name for name in ONE_OF_EACH if name != "guided_regex"])
def test_two_constraints_are_refused(second):
    complaint = refused(guided_regex="a", **{second: ONE_OF_EACH[second]})

    assert {"guided_regex", second} == set(complaint["msg"].split("'")[1::2])


def test_text_as_format_stands_beside_a_constraint():
    assert read(response_format={"type": "text"}, guided_regex="a").constraint_param == "guided_regex"


@pytest.mark.parametrize(
    "value",
    [
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_object", "json_schema": {"name": "n", "schema": {}}},
        {"type": "json_schema", "json_schema": {"schema": {}}},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": []}},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": "{}"}},
        {"type": "json_schema", "json_schema": {"name": "n", "strict": 1, "schema": {}}},
        "json_object",
    ],
)
def test_a_format_that_is_none_is_refused(value):
    complaint = refused(response_format=value)

    assert (complaint["loc"] or [complaint["ctx"]["param"]])[0] == "response_format"


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("guided_json", []),
        ("guided_json", 5),
        ("guided_json", ""),
        ("guided_regex", ""),
        ("guided_regex", "a" * (MAX_CONSTRAINT_CHARS + 1)),
        ("guided_regex", "\ud800"),
        ("guided_choice", []),
        ("guided_choice", [""]),
        ("guided_choice", ["a"] * 1025),
        ("guided_choice", "a"),
        ("guided_grammar", ""),
        ("structured_outputs", {"choice": []}),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_constraint_that_is_none_is_refused(param, value):
    assert refused(**{param: value})["loc"][0] == param


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"regex": "a", "choice": ["a"]},
        {"json_object": False},
        {"json": {}, "json_object": True},
        {"regex": "a", "disable_any_whitespace": True},
    ],
)
def test_the_object_of_all_kinds_needs_exactly_one(value):
    assert refused(structured_outputs=value)["ctx"]["param"] == "structured_outputs"


@pytest.mark.parametrize("value", [True, False, "{}", {}])
def test_a_schema_may_be_an_object_its_text_or_a_truth_value(value):
    assert read(guided_json=value).guided_json == value
    assert read(structured_outputs={"json": value}).structured_outputs.json_ == value


@pytest.mark.parametrize(
    ("schema", "depth"), [(True, 0), ({}, 1), ({"enum": [1]}, 2), ({"a": {}, "b": [{"c": 1}, 2]}, 3)], ids=str
)
def test_depth_counts_objects_and_arrays(schema, depth):
    assert depth_of(schema) == depth
