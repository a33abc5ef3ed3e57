import threading

from benchmarks.serving import PacedEngine
from engine.channel import BlockingEnd, channel_pair
from engine.config import EngineConfig, ModelConfig
from engine.messages import Accepted, Configure, Pulse, Ready, Submit, Updates
from engine.request import FinishReason
from tests.support.new_request import new_request


def test_the_paced_engine_gives_each_request_its_tokens_one_a_step():
    ours, theirs = channel_pair()
    end = BlockingEnd(ours)
    paced = PacedEngine(theirs.detach(), step_s=0.0)
    engine = threading.Thread(target=paced.run)
    engine.start()
    end.send(Configure(config=EngineConfig(model=ModelConfig(path="m", model_id="m"))))
    end.send(Submit(request=new_request("hello", max_tokens=3), first_sequence_id=7))
    told = []
    while not any(isinstance(message, Updates) and message.finish_reasons[0] for message in told):
        told.append(end.receive())
    end.close()
    engine.join(10)
    paced.end.close()

    updates = [message for message in told if isinstance(message, Updates)]
    assert [type(message) for message in told if not isinstance(message, Updates | Pulse)] == [
        Ready,
        Accepted,
    ]
    assert [(one.sequence_ids, len(one.token_ids)) for one in updates] == [((7,), 1)] * 3
    assert updates[-1].finish_reasons == (FinishReason.LENGTH,)
