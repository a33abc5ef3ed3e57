import pickle
from dataclasses import is_dataclass

import pytest

from engine import messages
from engine.config import EngineConfig, ModelConfig
from engine.errors import CheckpointError, EngineUnavailableError, StepError
from engine.messages import (
    Abort,
    Accepted,
    CacheCleared,
    ClearCache,
    Configure,
    Drain,
    Drained,
    Failed,
    Finish,
    Inspect,
    Inspected,
    Load,
    Loading,
    ModelCard,
    Pulse,
    Ready,
    Refused,
    Submit,
    ToEngine,
    ToServer,
    Updates,
    Vocabulary,
    from_plain,
    to_plain,
)
from engine.prefix_report import MissReason, PrefixReport
from engine.request import FinishReason
from engine.stats import EngineCounters, EngineStats, EngineView, PoolGauges
from tests.support.new_request import new_request
from tests.support.some_scores import some_scores

LOAD = Load(
    num_running=1,
    num_waiting=2,
    num_free_blocks=3,
    num_steps=4,
    num_preemptions=5,
)
REPORT = PrefixReport(
    num_matched_tokens=16, block_size=16, miss_reason=MissReason.DIFFERS, first_missing_block=1
)
STATS = EngineStats(counters=EngineCounters(num_preempted=1), pool=PoolGauges(num_blocks=2))
CARD = ModelCard(
    model_id="m",
    family="llama",
    device="cpu",
    dtype="bfloat16",
    vocab_size=264,
    eos_ids=(1, 2),
    max_context=100,
    window=None,
    weight_bytes=5,
    block_size=16,
    block_bytes=6,
    num_blocks=7,
)
EVERY_MESSAGE = [
    Configure(config=EngineConfig(model=ModelConfig(path="p", model_id="m"))),
    Vocabulary(token_bytes=(b"a", b"\xff"), special_ids=(1,)),
    Submit(request=new_request("hello", num_choices=2, stop=("a",)), first_sequence_id=256),
    Abort(request_id="a"),
    Finish(request_id="a", choice=1),
    ClearCache(order_id=3),
    Inspect(number=3),
    Drain(),
    Loading(stage="weights", done=1, total=2),
    Ready(card=CARD),
    Failed(error=CheckpointError("no weights")),
    Accepted(request_id="a"),
    Refused(request_id="a", error=EngineUnavailableError("draining", "draining", 2.0)),
    Updates(
        sequence_ids=(4, 9),
        num_tokens=(1, 2),
        token_ids=(17, 5, 6),
        logprobs=(-0.5,),
        ranks=(2,),
        num_top=(1, 0),
        top_ids=(8,),
        top_logprobs=(-0.25,),
        prompt_scores=((4, some_scores(-1.0, -2.0)),),
        prefix_reports=((4, REPORT),),
        finish_reasons=(None, FinishReason.STOP),
        failures=((3, StepError("boom")),),
        waited_s=((4, 0.5),),
        load=LOAD,
        stats=STATS,
    ),
    CacheCleared(order_id=3, num_blocks=7),
    Pulse(load=LOAD, stats=STATS),
    Inspected(number=3, view=EngineView(stats=STATS)),
    Drained(),
]
IDS = [type(message).__name__ for message in EVERY_MESSAGE]


def test_every_message_is_tried_here():
    tried = {type(message) for message in EVERY_MESSAGE}

    assert tried == {Configure, *ToEngine.__args__, *ToServer.__args__}


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=IDS)
def test_a_message_survives_pickling_and_compares_equal(message: object):
    arrived = pickle.loads(pickle.dumps(message, 5))

    assert type(arrived) is type(message)
    assert arrived == message


@pytest.mark.parametrize("message", [*EVERY_MESSAGE, CARD, LOAD], ids=[*IDS, "ModelCard", "Load"])
def test_a_message_is_frozen_and_slotted(message: object):
    assert isinstance(message, tuple) or type(message).__dataclass_params__.frozen
    assert not hasattr(message, "__dict__")


def test_a_message_that_differs_in_one_field_is_not_equal():
    assert Updates(sequence_ids=(1,)) != Updates(sequence_ids=(2,))
    assert Refused(request_id="a", error=StepError("x")) != Refused(request_id="a", error=StepError("y"))


def test_news_of_a_full_step_takes_a_few_bytes_per_row():
    num_rows = 256
    updates = Updates(
        sequence_ids=tuple(range(256, 256 + num_rows)),
        num_tokens=(1,) * num_rows,
        token_ids=tuple(range(30_000, 30_000 + num_rows)),
        finish_reasons=(None,) * num_rows,
    )

    assert len(pickle.dumps(updates, 5)) < 12 * num_rows


def test_everything_in_the_module_that_is_a_record_is_plain_data():
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type)]
    own = [kind for kind in kinds if kind.__module__ == messages.__name__]

    assert all(is_dataclass(kind) or issubclass(kind, tuple) for kind in own)
    assert all(
        "Tensor" not in str(annotation) for kind in own for annotation in kind.__annotations__.values()
    )
    assert len(own) == len(EVERY_MESSAGE) + 2


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
def test_every_message_is_itself_again_after_it_was_made_plain(message):
    arrived = from_plain(pickle.loads(pickle.dumps(to_plain(message))))

    assert arrived == message
    assert type(arrived) is type(message)
