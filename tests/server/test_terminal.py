import io
import sys

import openai
import pytest

from engine import EngineState, StepError
from server.terminal import Conversation, chat_at, converse
from tests.support.bodies import EVERY_EVENT
from tests.support.fake_engine import MODEL_ID, Script


class Keyboard:
    """Types lines, or raises what a key raises; at the end of them the user presses Ctrl-D."""

    def __init__(self, *typed):
        self.typed = list(typed)

    def __call__(self, prompt):
        if not self.typed:
            raise EOFError
        line = self.typed.pop(0)
        if isinstance(line, str):
            return line
        raise line


class InterruptingOutput(io.StringIO):
    """The user presses Ctrl-C when a certain text appears."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def write(self, text):
        super().write(text)
        if text == self.text:
            raise KeyboardInterrupt
        return len(text)


@pytest.fixture
def conversation(live):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
        yield Conversation(client=client, model_id=MODEL_ID, system=None, output=io.StringIO())


def said(conversation):
    return [(message["role"], message["content"]) for message in conversation.messages]


def test_an_answer_is_shown_and_remembered(conversation):
    converse(conversation, Keyboard("Hi"))

    assert EVERY_EVENT in conversation.output.getvalue()
    assert said(conversation) == [("user", "Hi"), ("assistant", EVERY_EVENT)]


def test_the_whole_conversation_is_sent(conversation, live):
    converse(conversation, Keyboard("one", "two"))

    assert [message["content"] for message in live.engine.messages[1]] == ["one", EVERY_EVENT, "two"]


def test_the_system_message_opens_every_conversation(conversation):
    conversation.system = "Be brief"
    converse(conversation, Keyboard("Hi", "/reset"))

    assert said(conversation) == [("system", "Be brief")]


def test_reset_forgets(conversation):
    converse(conversation, Keyboard("Hi", "/reset"))

    assert said(conversation) == []


def test_exit_leaves_at_once(conversation):
    keyboard = Keyboard("/exit", "Hi")
    converse(conversation, keyboard)

    assert keyboard.typed == ["Hi"]


def test_an_empty_line_asks_nothing(conversation, live):
    converse(conversation, Keyboard("", "   "))

    assert live.engine.messages == []


def test_an_unknown_command_shows_help(conversation, live):
    converse(conversation, Keyboard("/what"))

    assert "/reset" in conversation.output.getvalue()
    assert live.engine.messages == []


def test_an_interrupt_at_the_prompt_does_not_leave(conversation):
    converse(conversation, Keyboard(KeyboardInterrupt(), "Hi"))

    assert len(said(conversation)) == 2


def test_an_interrupt_stops_the_answer_and_not_the_program(conversation, live):
    live.engine.script = Script(pieces=("one", "two"), is_endless=True)
    conversation.output = InterruptingOutput("one")
    converse(conversation, Keyboard("Hi"))
    live.wait(live.engine.closed)

    assert said(conversation) == [("user", "Hi"), ("assistant", "one")]
    assert "[stopped]" in conversation.output.getvalue()
    assert live.engine.open_ids == set()


def test_a_refused_question_is_forgotten_and_told(conversation, live):
    live.engine.state, live.engine.detail = EngineState.RESTARTING, "again"
    converse(conversation, Keyboard("Hi"))

    assert said(conversation) == []
    assert "restarting" in conversation.output.getvalue()


def test_an_answer_that_breaks_off_is_told(conversation, live):
    live.engine.script = Script(pieces=("one",), error=StepError("step 7 failed"))
    converse(conversation, Keyboard("Hi"))

    assert "one\n[step 7 failed]\n" in conversation.output.getvalue()


def test_lines_are_edited_where_python_has_an_editor():
    pytest.importorskip("readline")

    assert "readline" in sys.modules


def test_a_chat_names_the_model_and_the_keys(live):
    output = io.StringIO()
    was_possible = chat_at(live.url, "any", None, output, Keyboard())

    assert was_possible
    assert MODEL_ID in output.getvalue()
    assert "Ctrl-D" in output.getvalue()


def test_a_chat_with_nobody_says_so():
    output = io.StringIO()
    was_possible = chat_at("http://127.0.0.1:1", "any", None, output, Keyboard())

    assert not was_possible
    assert "http://127.0.0.1:1" in output.getvalue()
