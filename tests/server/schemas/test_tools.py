import pytest
from pydantic import ValidationError

from server.schemas.constraint import MAX_DEPTH
from server.schemas.tools import MAX_SCHEMA_CHARS, MAX_TOOLS, ToolBody


def tool(name: str = "f", **fields: object) -> dict:
    return {"type": "function", "function": {"name": name, **fields}}


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str) -> dict:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list(map(named, names))}}


def refused(**fields: object) -> dict:
    with pytest.raises(ValidationError) as caught:
        ToolBody.model_validate(fields)
    return caught.value.errors()[0]


@pytest.mark.parametrize("choice", [None, "none", "auto", "required", named("f"), allowed("f")], ids=str)
def test_each_choice_is_read(choice):
    body = ToolBody.model_validate({"tools": [tool(strict=True)], "tool_choice": choice})

    assert body.model_dump(exclude_none=True, include={"tool_choice"}) == (
        {} if choice is None else {"tool_choice": choice}
    )


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, "a.b", "f\n", 5, None])
def test_names_keep_to_the_pattern(name):
    assert refused(tools=[tool(name)])["loc"] == ("tools", 0, "function", "name")


def test_a_function_is_declared_once():
    assert refused(tools=[tool("f"), tool("f")])["ctx"]["param"] == ("tools", 1, "function", "name")


@pytest.mark.parametrize(
    ("choice", "where"),
    [
        (named("g"), ("tool_choice", "function", "name")),
        (allowed("f", "g"), ("tool_choice", "allowed_tools", "tools", 1, "function", "name")),
    ],
)
def test_a_choice_names_what_is_declared(choice, where):
    complaint = refused(tools=[tool()], tool_choice=choice)

    assert complaint["ctx"]["param"] == where
    assert "'g' not found" in complaint["msg"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("f"), "tools": []}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"functions": [{"name": "f"}], "tools": [tool()]}, "functions"),
    ],
)
def test_a_choice_needs_something_to_choose_from(fields, param):
    assert refused(**fields)["ctx"]["param"] == param


@pytest.mark.parametrize(
    "fields", [{"tool_choice": "auto"}, {"tool_choice": "none"}, {"parallel_tool_calls": True}, {"tools": []}]
)
def test_what_asks_for_nothing_needs_no_tools(fields):
    assert ToolBody.model_validate(fields).declared == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        {"tools": [tool()], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
    ],
)
def test_custom_tools_are_not_supported(fields):
    assert refused(**fields)["type"] == "unsupported_parameter"


@pytest.mark.parametrize(
    "parameters",
    [[], "x", {"type": "string"}, {"type": None}, {"type": "object", "x": "y" * MAX_SCHEMA_CHARS}],
    ids=lambda parameters: str(parameters)[:20],
)
def test_a_schema_is_that_of_an_object_and_bounded(parameters):
    assert refused(tools=[tool(parameters=parameters)])["loc"] == ("tools", 0, "function", "parameters")


def test_tools_are_bounded():
    assert refused(tools=[tool(f"f{i}") for i in range(MAX_TOOLS + 1)])["loc"] == ("tools",)


def test_the_older_fields_declare_functions_too():
    body = ToolBody.model_validate({"functions": [{"name": "f"}], "function_call": {"name": "f"}})

    assert [function.name for function in body.declared] == ["f"]


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_functions_of_one_age_are_not_chosen_by_the_field_of_the_other(choice):
    assert refused(functions=[{"name": "f"}], tool_choice=choice)["ctx"]["param"] == "tool_choice"
    assert refused(tools=[tool()], function_call=choice)["ctx"]["param"] == "function_call"


def test_a_functions_schema_has_a_greatest_depth():
    def nested(depth):
        schema = {}
        for _ in range(depth - 1):
            schema = {"items": schema}
        return [tool(parameters=schema)]

    ToolBody.model_validate({"tools": nested(MAX_DEPTH)})
    complaint = refused(tools=nested(MAX_DEPTH + 1))

    assert complaint["loc"] == ("tools", 0, "function", "parameters")
    assert complaint["msg"].endswith("nested at most 64 levels deep, not 65")
