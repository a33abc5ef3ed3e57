"""Law 13: an answer that ended by itself follows its constraint, and no neighbour's."""

import hypothesis
import pytest
from hypothesis import strategies as st

from engine.request import FinishReason
from server.translate.constraint import json_rule, to_grammar
from tests.support.some_schemas import complaints, schemas
from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

PROMPT = tuple(b"JSON please: ")
TOKEN_BYTES = 2 * 2 * 2 * 16 * 8  # keys and values, two layers, two heads of 16 float64 numbers
MAX_TOKENS = 200
NUM_BLOCKS = 56  # little more than one answer of full length needs
FREE = {"temperature": 1.5, "max_tokens": 40}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama")


class World:
    """An engine short of blocks, with two steps in flight, and what free rows draw there alone."""

    def __init__(self, engine):
        self.engine = engine
        self.num_runs = 0
        self.num_stopped = 0
        self.num_ended = 0
        ((self.free,),) = engine.run(tiny_request("free", PROMPT, seed=3, **FREE))

    def check(self, drawn, seed):
        """Run one request for each schema beside a free one, and judge what comes."""
        self.num_runs += 1
        name = f"r{self.num_runs}"
        requests = [
            tiny_request(
                f"{name}-{index}",
                PROMPT,
                n=1 + index % 2,
                seed=seed + index,
                temperature=1.5,
                max_tokens=MAX_TOKENS,
                ignore_eos=bool(seed % 2),
                grammar=to_grammar(json_rule(schema)),
            )
            for index, schema in enumerate(drawn)
        ]
        aborted = tiny_request(
            f"{name}-gone", PROMPT, max_tokens=MAX_TOKENS, grammar=requests[0].sampling.grammar
        )
        gone = self.engine.submit(aborted)
        self.engine.abort(aborted.request_id)
        outputs = self.engine.run(*requests, tiny_request(f"{name}-free", PROMPT, seed=3, **FREE))

        assert outputs[-1][0].token_ids == self.free.token_ids
        assert not gone[0].has_ended
        for schema, own in zip(drawn, outputs, strict=False):
            for output in own:
                self._judge(schema, output)

    def _judge(self, schema, output):
        assert output.error is None, (schema, output.error)
        self.num_ended += 1
        if output.finish_reason is FinishReason.LENGTH:
            assert len(output.token_ids) == MAX_TOKENS
            return
        self.num_stopped += 1
        text = bytes(token_id for token_id in output.token_ids if token_id < 256).decode()
        assert list(complaints(text, schema)) == []


@pytest.fixture(scope="module")
def world(checkpoint):
    few_blocks = {"block_size": 4, "kv_cache_bytes": NUM_BLOCKS * 4 * TOKEN_BYTES}
    scheduling = {"steps_in_flight": 2, "max_step_tokens": 64}
    with threaded_engine(
        checkpoint, model={"max_context": 216}, cache=few_blocks, scheduling=scheduling
    ) as engine:
        yield World(engine)


DRAWN = st.lists(schemas(), min_size=3, max_size=3)
SEEDS = st.integers(0, 1 << 32)
QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(hypothesis.HealthCheck),
}


@hypothesis.settings(max_examples=8, phases=[hypothesis.Phase.generate], **QUIET)
@hypothesis.given(DRAWN, SEEDS)
def test_every_answer_that_stopped_follows_its_schema(world, drawn, seed):
    world.check(drawn, seed)


def test_most_answers_stopped_and_some_were_preempted(world):
    world.check([{"type": "boolean"}] * 3, 1)

    assert world.num_stopped > world.num_ended / 2
    assert world.engine.built.scheduler.load.num_preemptions > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@hypothesis.settings(max_examples=300, **QUIET)
@hypothesis.given(DRAWN, SEEDS)
def test_hundreds_of_answers_that_stopped_follow_their_schemas(world, drawn, seed):
    world.check(drawn, seed)
