"""Law 13 for calls: what a model is made to call is declared, is read back, and fits its schema."""

import hypothesis
import pytest
from hypothesis import strategies as st

from engine.request import FinishReason
from server.schemas.tools import FunctionDefinition
from server.tools.call_parser import CallParser
from server.translate.call_grammar import forced_calls
from server.translate.constraint import to_grammar
from tests.support.call_texts import FORMATS, called, said
from tests.support.some_schemas import complaints, schemas
from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

PROMPT = tuple(b"Call: ")
MAX_TOKENS = 200
QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(hypothesis.HealthCheck),
}


def of_arguments(schema):
    """The schema of an object with one member that follows `schema`; what it refers to stays at the root."""
    own = {key: value for key, value in schema.items() if key != "$defs"}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    wrapped = {"type": "object", "properties": {"it": own}, "required": ["it"], "additionalProperties": False}
    return {**wrapped, **definitions}


TWO_SCHEMAS = st.tuples(schemas().map(of_arguments), schemas().map(of_arguments))
SEEDS = st.integers(0, 1 << 32)


class World:
    """An engine with a random model, and how its calls went."""

    def __init__(self, engine):
        self.engine = engine
        self.num_runs = 0
        self.num_calls = 0

    def check(self, pair, seed):
        """Have calls made in every format, of two functions, and judge those that were not cut."""
        self.num_runs += 1
        functions = [
            FunctionDefinition(name=f"f{i}", strict=True, parameters=own) for i, own in enumerate(pair)
        ]
        requests = []
        for index, tool_format in enumerate(FORMATS.values()):
            rules = forced_calls(functions, tool_format, {}, is_parallel=bool(seed % 2))
            requests.append(
                tiny_request(
                    f"{self.num_runs}-{index}",
                    PROMPT,
                    seed=seed + index,
                    temperature=1.5,
                    max_tokens=MAX_TOKENS,
                    grammar=to_grammar(rules.answer, rules=rules.rules),
                )
            )
        outputs = self.engine.run(*requests)
        for tool_format, (output,) in zip(FORMATS.values(), outputs, strict=True):
            self._judge(tool_format, output, pair)

    def _judge(self, tool_format, output, pair):
        assert output.error is None, (pair, output.error)
        text = bytes(token_id for token_id in output.token_ids if token_id < 256).decode("utf-8", "replace")
        parser = CallParser(tool_format.read, frozenset({"f0", "f1"}))
        pieces = parser.feed(text) + parser.finish()
        calls = called(pieces)
        if output.finish_reason is FinishReason.LENGTH:
            calls = calls[:-1]
        else:
            assert calls, text
            assert (said(pieces), parser.is_broken) == ("", False), text
        self.num_calls += len(calls)
        for name, arguments in calls:
            assert list(complaints(arguments, pair[int(name[1])])) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama")
    with threaded_engine(checkpoint) as engine:
        yield World(engine)


@hypothesis.settings(max_examples=2, phases=[hypothesis.Phase.generate], **QUIET)
@hypothesis.given(TWO_SCHEMAS, SEEDS)
def test_every_call_fits_its_schema(world, pair, seed):
    world.check(pair, seed)


def test_many_calls_were_judged(world):
    plain = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    world.check((plain, plain), 2)

    assert world.num_calls >= len(FORMATS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@hypothesis.settings(max_examples=150, **QUIET)
@hypothesis.given(TWO_SCHEMAS, SEEDS)
def test_hundreds_of_calls_fit_their_schemas(world, pair, seed):
    world.check(pair, seed)
