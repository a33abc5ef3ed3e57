import json
from datetime import datetime

import pytest

from engine.errors import CheckpointError, RequestError
from engine.text.chat_template import ChatOptions, ChatTemplate

HELLO = [{"role": "user", "content": "hello"}]


def render(source: str, messages: list[dict[str, object]] | None = None, **special_tokens: str) -> str:
    template = ChatTemplate.compile(source, special_tokens, now=lambda: datetime(2031, 5, 4, 3, 2, 1))
    return template.render(HELLO if messages is None else messages)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("{{ messages[0].content }}", "hello", id="messages"),
        pytest.param("{% if add_generation_prompt %}go{% endif %}", "go", id="a prompt to answer"),
        pytest.param("{{ tools is none and documents is none }}", "True", id="no tools, no documents"),
        pytest.param("a\n  {% if true %}\nb{% endif %}", "a\nb", id="blocks leave no lines"),
        pytest.param("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}', id="JSON is not escaped"),
        pytest.param("{{ [1] | tojson(indent=1) }}", "[\n 1\n]", id="JSON may be indented"),
        pytest.param("{{ strftime_now('%d %b %Y') }}", "04 May 2031", id="today"),
        pytest.param("{% for i in [1, 2] %}{% break %}{% endfor %}x", "x", id="loop controls"),
        pytest.param("{% generation %}a{% endgeneration %}b", "ab", id="generation blocks"),
        pytest.param("[{{ bos_token }}{{ eos_token }}]", "[]", id="no such special tokens"),
        pytest.param(
            "{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", "2", id="namespaces can be written to"
        ),
    ],
)
def test_a_template_gets_what_checkpoints_are_written_against(source: str, expected: str) -> None:
    assert render(source) == expected


def test_special_tokens_have_their_names_in_a_template() -> None:
    assert render("{{ bos_token }}|{{ eos_token }}", bos_token="<s>", eos_token="</s>") == "<s>|</s>"


def test_a_template_that_raises_refuses_the_messages_in_its_own_words() -> None:
    with pytest.raises(RequestError, match="refuses these messages: roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")

    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ messages[0].name.first }}", id="a missing field"),
        pytest.param("{{ messages[0].content + 1 }}", id="a wrong type"),
        pytest.param("{{ messages[0]['content'] | int(base='x') / 0 }}", id="arithmetic"),
        pytest.param("{{ messages.append(1) }}", id="a change of the messages"),
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="a way out of the sandbox"),
        pytest.param("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", id="endless recursion"),
    ],
)
def test_a_template_that_fails_is_the_requests_fault(source: str) -> None:
    with pytest.raises(RequestError, match="refuses these messages"):
        render(source)


def test_a_malformed_template_is_the_checkpoints_fault() -> None:
    with pytest.raises(CheckpointError, match="chat template is malformed"):
        ChatTemplate.compile("{% if %}", {})


def test_messages_may_hold_more_than_text() -> None:
    messages = [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]}]

    rendered = render("{{ messages[0].tool_calls[0] | tojson }}", messages)

    assert json.loads(rendered) == {"name": "f", "arguments": {"x": 1}}


TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
BEGUN = [*HELLO, {"role": "assistant", "content": "The answer is "}]


def rendered(source: str, messages: list[dict[str, object]], **options: object) -> str:
    return ChatTemplate.compile(source, {}).render(messages, ChatOptions(**options))


def test_without_a_prompt_to_answer_the_conversation_is_all() -> None:
    assert rendered(TURNS, HELLO, add_generation_prompt=False) == "<user>hello</s>"


def test_a_continued_message_stays_open() -> None:
    assert rendered(TURNS, BEGUN, continue_final_message=True) == "<user>hello</s><assistant>The answer is "


def test_a_message_without_text_cannot_be_continued() -> None:
    with pytest.raises(RequestError, match="no text") as caught:
        rendered(TURNS, [{"role": "assistant", "content": None}], continue_final_message=True)

    assert caught.value.param == "continue_final_message"


def test_a_message_that_the_template_hides_cannot_be_continued() -> None:
    with pytest.raises(RequestError, match="does not show"):
        rendered("x", BEGUN, continue_final_message=True)


def test_variables_reach_the_template_and_are_known() -> None:
    source = "{% set a = 1 %}{{ mood }}{{ bos_token }}{{ strftime_now('') }}{{ raise_exception is defined }}{{ a }}"

    assert "sad" in rendered(source, HELLO, variables={"mood": "sad"})
    assert ChatTemplate.compile(source, {}).variables == {"mood"}


def test_a_variable_does_not_replace_what_the_template_is_given() -> None:
    assert rendered("{{ messages | length }}", HELLO, variables={"messages": []}) == "1"


def test_a_request_cannot_change_the_special_tokens() -> None:
    template = ChatTemplate.compile(
        "{{ bos_token }}{{ eos_token }}", {"bos_token": "<s>", "eos_token": "</s>"}
    )
    options = ChatOptions(variables={"bos_token": "x", "eos_token": "y", "messages": [], "tools": [1]})

    assert template.render(HELLO, options) == "<s></s>"
    assert template.variables == frozenset()


@pytest.mark.parametrize(
    ("source", "param"),
    [
        pytest.param("{{ messages[0].content + limit }}", "messages", id="the messages' fault"),
        pytest.param(
            "{% if limit is defined %}{{ limit + 'x' }}{% endif %}", "chat_template_kwargs", id="theirs"
        ),
        pytest.param("{{ messages[0].nothing.x }}{{ limit }}", "messages", id="not theirs"),
    ],
)
def test_variables_are_blamed_for_what_goes_well_without_them(source: str, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        ChatTemplate.compile(source, {}).render(HELLO, ChatOptions(variables={"limit": 5}))

    assert caught.value.param == param


def test_a_template_may_read_the_tools() -> None:
    source = "{% if tools %}{{ tools[0].function.name }}{% endif %}"
    tools = ({"type": "function", "function": {"name": "add"}},)

    assert rendered(source, [], tools=tools) == "add"
    assert rendered(source, []) == ""


def test_a_template_tells_its_text_and_whether_it_reads_tools() -> None:
    reading, other = (ChatTemplate.compile(source, {}) for source in ("{{ tools }}", "{{ messages }}"))

    assert (reading.source, reading.reads_tools) == ("{{ tools }}", True)
    assert not other.reads_tools
