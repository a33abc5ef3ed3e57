"""What the fake engine cannot show: whatever a body says, the real engine answers it, and the server stays awake."""

import json
import threading
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.schemas.chat import ChatCompletionRequest
from server.schemas.completions import CompletionRequest
from tests.scenarios.test_random_bodies import MESSAGES, bodies
from tests.support.bodies import CHAT_PATH, COMPLETION_PATH
from tests.support.real_server import MAX_CONTEXT, MODEL_ID, real_server
from tests.support.tiny_model import write_tiny_checkpoint

USER = {"role": "user", "content": "Hi"}
CHAT = {"model": MODEL_ID, "messages": [USER], "max_tokens": 3}
COMPLETION = {"model": MODEL_ID, "prompt": "Hi", "max_tokens": 3}
EDGES = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        100,
        -100,
        1000,
        0.01,
        5e-324,
        1e-300,
        1e-50,
        1e-38,
        1e-5,
        1 - 1e-16,
        1.99,
        1e300,
        2**31 - 1,
    ]
)
NUMBERS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
    *("xtc_probability", "xtc_threshold", "min_tokens", "seed", "n", "priority"),
)
LISTS = {
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), EDGES, max_size=3),
    "allowed_token_ids": st.lists(st.integers(0, 300), min_size=1, max_size=3),
    "bad_words": st.lists(st.text(max_size=3), max_size=3),
    "stop_token_ids": st.lists(st.integers(0, 300), max_size=3),
    "ignore_eos": st.booleans(),
    "prompt_logprobs": st.integers(0, 3),
}
EDGY = st.fixed_dictionaries({}, optional={**dict.fromkeys(NUMBERS, EDGES), **LISTS})
PROMPTS = (
    st.text(max_size=8)
    | st.lists(st.integers(0, 300), max_size=4)
    | st.lists(st.text(max_size=4), max_size=2)
)
FEW = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LOOPS = "{% for a in messages %}{% for b in messages %}{% for c in messages %}{% endfor %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama")


@pytest.fixture(scope="module")
def client(checkpoint):
    with real_server(checkpoint) as client:
        yield client


def check(client: httpx.Client, path: str, body: dict) -> None:
    """The answer is no failure, and the engine is the one that it was."""
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    health = client.get("/health").json()

    assert answer.status_code < 500, answer.text
    assert '"error":{' not in answer.text.replace(" ", "") or answer.status_code != 200, answer.text
    assert (health["state"], health["generation"]) == ("ready", 1)


@FEW
@given(edgy=EDGY, path=st.sampled_from([CHAT_PATH, COMPLETION_PATH]), stream=st.booleans())
def test_no_number_at_the_edges_makes_the_engine_fail(client, edgy, path, stream):
    fixed = CHAT if path == CHAT_PATH else COMPLETION
    check(client, path, {**fixed, "stream": stream, **edgy})


@FEW
@given(body=bodies(CHAT, ChatCompletionRequest, messages=MESSAGES, n=st.integers(0, 3)))
def test_no_chat_body_makes_the_engine_fail(client, body):
    check(client, CHAT_PATH, body)


@FEW
@given(body=bodies(COMPLETION, CompletionRequest, prompt=PROMPTS, n=st.integers(0, 3), echo=st.booleans()))
def test_no_completion_body_makes_the_engine_fail(client, body):
    check(client, COMPLETION_PATH, body)


@pytest.mark.parametrize("temperature", [1e-50, 5e-324, 1e-38])
def test_a_temperature_next_to_nothing_answers_as_a_greedy_one(client, temperature):
    body = {**COMPLETION, "return_token_ids": True, "max_tokens": 8}
    greedy, tiny = (
        client.post(COMPLETION_PATH, json={**body, "temperature": own}).json()["choices"][0]["token_ids"]
        for own in (0, temperature)
    )

    assert tiny == greedy


def test_equal_prompts_are_answered_differently_unless_there_is_a_seed(client):
    body = {
        **COMPLETION,
        "prompt": ["Hi", "Hi"],
        "max_tokens": 16,
        "return_token_ids": True,
        "temperature": 2,
    }

    def answers(**more):
        choices = client.post(COMPLETION_PATH, json={**body, **more}).json()["choices"]
        return [choice["token_ids"] for choice in choices]

    first, second = answers()
    seeded = answers(seed=5)

    assert first != second
    assert seeded[0] == seeded[1]


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (
            CHAT_PATH,
            {**CHAT, "messages": [{**USER, "content": "x" * 200}]},
            "messages",
            "Shorten the messages.",
        ),
        (CHAT_PATH, {**CHAT, "messages": [{**USER, "content": "x" * 9999}]}, "messages", "at least"),
        (CHAT_PATH, {**CHAT, "max_tokens": 90}, "max_tokens", "lower max_tokens"),
        (COMPLETION_PATH, {"model": MODEL_ID, "prompt": "x" * 96}, "prompt", "Shorten the prompt."),
        (COMPLETION_PATH, {"model": MODEL_ID, "prompt": [7] * 200, "echo": True}, "prompt", "has 200"),
        (COMPLETION_PATH, {**COMPLETION, "max_tokens": 95}, "max_tokens", "2 in the prompt and 95 for"),
    ],
    ids=["chat", "very long chat", "chat's limit", "text", "ids", "limit"],
)
def test_what_does_not_fit_is_blamed_on_the_field_that_is_too_long(client, path, body, param, words):
    error = client.post(path, json=body).json()["error"]

    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert f"maximum context length is {MAX_CONTEXT} tokens" in error["message"]
    assert words in error["message"]
    assert ("max_tokens" in error["message"]) == (param == "max_tokens")


def test_a_default_limit_ends_with_the_context(client):
    answer = client.post(
        COMPLETION_PATH, json={"model": MODEL_ID, "prompt": "x" * 90, "ignore_eos": True}
    ).json()

    assert answer["usage"]["completion_tokens"] == MAX_CONTEXT - 90


def longest_wait_s(client: httpx.Client, path: str, body: dict) -> tuple[httpx.Response, float, float]:
    """The answer to `body`, the seconds it took, and the longest that /health took meanwhile."""
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(client.post(path, json=body)))
    longest_s, started_s = 0.0, time.perf_counter()
    asking.start()
    while asking.is_alive():
        asked_s = time.perf_counter()
        assert client.get("/health").status_code == 200
        longest_s = max(longest_s, time.perf_counter() - asked_s)
    return answers[0], time.perf_counter() - started_s, longest_s


def test_the_server_answers_while_it_works_on_long_text(client):
    answer, whole_s, health_s = longest_wait_s(
        client, "/tokenize", {"prompt": "word " * 150_000, "return_token_strs": True}
    )

    assert answer.json()["count"] == 750_000
    assert health_s < whole_s / 2


def test_the_server_answers_while_a_template_goes_round_its_loops(checkpoint, tmp_path):
    template = tmp_path / "loops.jinja"
    template.write_text(LOOPS, "utf-8")
    with real_server(checkpoint, template=template) as client:
        answer, whole_s, health_s = longest_wait_s(client, CHAT_PATH, {**CHAT, "messages": [USER] * 1000})

    assert answer.status_code == 400
    assert "go round more than" in answer.json()["error"]["message"]
    assert health_s < whole_s / 2
