"""Other people's client packages, each driven by a script of its own against a real server."""

import pytest

from tests.clients.client_script import SCRIPTS, run_script
from tests.clients.conftest import MODEL
from tests.support.fake_engine import MODEL_ID, FakeEngine, Script
from tests.support.live_server import live_server

pytestmark = [pytest.mark.clients, pytest.mark.demo_model, pytest.mark.timeout(1200)]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
NUM_TOKENS = 8
PROMPT = "The capital of France is"


def test_langchain_invokes_streams_batches_and_scores(python_script):
    seen = python_script("langchain_client", question=QUESTION, prompt=PROMPT)

    assert "Paris" in seen["text"]
    assert seen["streamed_text"] == seen["text"]
    assert seen["batch"] == [seen["text"]] * 2
    assert seen["finish_reason"] == "stop"
    assert seen["streamed_usage"] == seen["usage"] == len(seen["logprobs"])
    assert all(entry["chosen"] <= 0 and entry["num_top"] == 3 for entry in seen["logprobs"])
    assert seen["num_chunks"] > 2
    assert "Paris" in seen["completion"]
    assert seen["refusal"] == "temperature"
    ((name, arguments),) = seen["calls"]
    assert name == "get_weather"
    assert (arguments["city"] in ("Paris", "London"), arguments["days"] in (1, 2, 3)) == (True, True)
    assert seen["streamed_calls"] == seen["calls"]
    assert seen["told"]


def test_litellm_completes_streams_and_maps_errors(python_script):
    seen = python_script("litellm_client", question=QUESTION, prompt=PROMPT)

    assert seen["text"] == seen["streamed_text"] == seen["later_text"] == ANSWER
    assert seen["usage"] == seen["streamed_usage"] == NUM_TOKENS
    assert seen["finish_reason"] == "stop"
    assert "Paris" in seen["completion"]
    assert seen["num_top"]
    assert set(seen["num_top"]) == {2}
    assert seen["errors"] == ["BadRequestError", "NotFoundError"]


def test_the_node_package_reads_every_kind_of_answer(node_script):
    seen = node_script("openai_client", question=QUESTION, prompt=PROMPT)

    assert seen["text"] == seen["streamed_text"] == seen["accumulated_text"] == ANSWER
    assert seen["usage"] == seen["streamed_usage"] == NUM_TOKENS
    assert seen["request_id"] == seen["request_id_header"]
    assert seen["num_top"] == [2] * NUM_TOKENS
    assert "Paris" in seen["completion"]
    assert seen["scored_text"].startswith(PROMPT)
    assert seen["scored_logprobs"][0] is None
    assert all(logprob <= 0 for logprob in seen["scored_logprobs"][1:])
    assert seen["errors"] == [
        ["BadRequestError", "temperature", "invalid_value"],
        ["NotFoundError", "model", "model_not_found"],
    ]
    assert seen["seen_before_abort"] == 3
    assert seen["models"] == [MODEL]


def test_instructor_reads_a_typed_answer_out_of_the_text(client_python):
    """The words are scripted, since a model this small writes no JSON; package, HTTP and server are real."""
    pieces = ("Here it is:\n```json\n", '{"city": "Paris", ', '"country": "France"}', "\n```")
    with live_server(FakeEngine) as live:
        live.engine.script = Script(pieces=pieces)
        command = [client_python, SCRIPTS / "instructor_client.py"]
        seen = run_script(command, f"{live.url}/v1", model=MODEL_ID, question=QUESTION)

    assert seen["city"] == {"city": "Paris", "country": "France"}
    assert seen["raw"] == seen["plain"] == "".join(pieces)


def test_instructor_reads_a_typed_answer_out_of_a_call(python_script):
    """No word is scripted here: the call is constrained, so even a model this small makes a valid one."""
    seen = python_script("instructor_tools_client", question=QUESTION)

    assert seen["name"] == "City"
    assert seen["city"] == {name: seen["arguments"][name] for name in ("city", "country", "size")}
    assert seen["city"]["size"] in ("small", "large")
    assert seen["finish_reason"] == "stop"
