import pytest
from jinja2 import TemplateError

from engine.errors import RequestError
from engine.text import template_budget
from engine.text.chat_template import ChatOptions, ChatTemplate
from engine.text.template_budget import MAX_CHARACTERS, MAX_ROUNDS, MAX_SECONDS, Budget

MANY = [{"role": "user", "content": "x"}] * 1100
SQUARED = "{% for a in messages %}{% for b in messages %}{% endfor %}{% endfor %}done"


def compiled(source: str, clock=lambda: 0.0) -> ChatTemplate:
    return ChatTemplate.compile(source, {}, clock=clock)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 ", id="loop"
        ),
        pytest.param(
            "{% for m in messages if m.role == 'a' %}{{ m.content }}{% endfor %}", "1", id="conditions"
        ),
        pytest.param("{% for m in nothing %}x{% else %}none{% endfor %}", "none", id="nothing"),
        pytest.param(
            "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=a;content=1;",
            id="pairs",
        ),
        pytest.param(
            "{% macro m(x) %}{% for c in x %}{{ c }}.{% endfor %}{% endmacro %}{{ m('ab') }}",
            "a.b.",
            id="macros",
        ),
        pytest.param(
            "{% for m in [[1, []], [2, [[3, []]]]] recursive %}{{ m[0] }}{{ loop(m[1]) }}{% endfor %}",
            "123",
            id="recursion",
        ),
        pytest.param(
            "{% for m in messages %}{{ loop.last }}{{ loop.revindex }}{% endfor %}", "False2True1", id="ends"
        ),
    ],
)
def test_counted_loops_are_loops(source: str, expected: str) -> None:
    assert compiled(source).render([{"role": "a", "content": "1"}, {"role": "b", "content": "2"}]) == expected


@pytest.mark.parametrize(
    "source",
    [
        SQUARED,
        "{% set all %}" + SQUARED + "{% endset %}",
        "{% macro m() %}" + SQUARED + "{% endmacro %}{{ m() }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    ],
    ids=["loops in loops", "in a block", "in a macro", "ranges"],
)
def test_a_template_goes_round_its_loops_only_so_often(source: str) -> None:
    with pytest.raises(RequestError, match=f"more than {MAX_ROUNDS} times") as caught:
        compiled(source).render(MANY)

    assert caught.value.param == "messages"


def test_each_rendering_has_a_budget_of_its_own() -> None:
    template = compiled("{% for a in messages %}{% for b in messages[:700] %}{% endfor %}{% endfor %}done")

    assert [template.render(MANY) for _ in range(2)] == ["done", "done"]


def test_a_template_writes_only_so_much() -> None:
    page = "x" * (MAX_CHARACTERS // 4)

    with pytest.raises(TemplateError, match=f"more than {MAX_CHARACTERS} characters"):
        list(Budget(lambda: 0.0).counted([page] * 5))


def test_a_template_has_only_so_much_time() -> None:
    seconds = iter([0.0, 1.0, MAX_SECONDS, MAX_SECONDS + 1])
    template = compiled("{% for m in messages %}{% set x = 1 %}{% endfor %}", lambda: next(seconds))

    with pytest.raises(RequestError, match="longer than 10 s"):
        template.render(MANY)


def test_a_request_cannot_set_its_budget() -> None:
    options = ChatOptions(variables={template_budget.COUNTED: None})

    assert compiled("{% for m in messages %}x{% endfor %}").render(MANY[:2], options) == "xx"
    assert template_budget.COUNTED not in compiled("{{ _counted }}").variables
