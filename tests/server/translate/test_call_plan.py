import pytest

from server.schemas.tools import ToolBody
from server.translate.call_plan import plan_calls

F, G = ({"type": "function", "function": {"name": name}} for name in "fg")
STRICT = {"type": "function", "function": {"name": "s", "strict": True}}


def plan(**fields: object):
    return plan_calls(ToolBody.model_validate(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": [F], "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
    ],
)
def test_nothing_may_be_called(fields):
    assert plan(**fields) is None


@pytest.mark.parametrize("choice", [None, "auto"])
def test_by_default_calls_are_free(choice):
    found = plan(tools=[F, G], tool_choice=choice)

    assert (found.names, found.must_call, found.needs_grammar) == ({"f", "g"}, False, False)


def test_required_demands_a_call():
    found = plan(tools=[F, G], tool_choice="required")

    assert (found.must_call, found.is_parallel, found.is_named, found.needs_grammar) == (
        True,
        True,
        False,
        True,
    )


def test_a_named_function_is_called_once():
    found = plan(tools=[F, G], tool_choice=G)

    assert (found.names, found.must_call, found.is_parallel, found.is_named) == ({"g"}, True, False, True)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_leave_a_part(mode):
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [F]}}
    found = plan(tools=[F, G], tool_choice=choice)

    assert (found.names, len(found.declared)) == ({"f"}, 2)
    assert (found.must_call, found.needs_grammar) == (mode == "required", True)


@pytest.mark.parametrize("fields", [{"tools": [STRICT]}, {"tools": [F], "parallel_tool_calls": False}])
def test_free_text_would_not_do(fields):
    assert plan(**fields).needs_grammar


@pytest.mark.parametrize(("choice", "is_named"), [(None, False), ("auto", False), ({"name": "f"}, True)])
def test_the_older_form_is_one_call_at_most(choice, is_named):
    found = plan(functions=[{"name": "f"}, {"name": "g"}], function_call=choice)

    assert (found.is_legacy, found.is_parallel) == (True, False)
    assert (found.is_named, found.must_call) == (is_named, is_named)
