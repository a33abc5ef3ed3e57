"""lm-eval's scores through our server are those of transformers on the same weights, document by document."""

import json
from pathlib import Path

import pytest
import torch

from engine.text.gguf_tokenizer import load_gguf_tokenizer
from tests.support.demo_oracle import demo_oracle

pytestmark = [pytest.mark.clients, pytest.mark.demo_model, pytest.mark.timeout(1200)]

TASKS = Path(__file__).parent / "lm_eval"
TIE = 2e-3  # per token: two float32 computations of one log-probability differ by less
MAX_NEW_TOKENS = 20
IM_END = 2


def documents(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def backend(demo_model_path):
    return load_gguf_tokenizer(demo_model_path).backend


@pytest.fixture(scope="module")
def oracle(demo_model_path):
    return demo_oracle(demo_model_path)


@pytest.fixture
def tasks(tmp_path) -> Path:
    """The task files, their data named by where they are now."""
    for file in TASKS.glob("*.yaml"):
        text = file.read_text("utf-8").replace("tests/clients/lm_eval", str(TASKS))
        (tmp_path / file.name).write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def tokenizer_folder(tmp_path, backend) -> Path:
    """The model's tokenizer, as lm-eval's transformers loads one."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def logits_of(oracle, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return oracle(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def log_likelihood(oracle, backend, context: str, continuation: str) -> tuple[float, int]:
    """Of the continuation's tokens after the context's, and how many they are."""
    start = len(backend.encode(context).ids)
    ids = backend.encode(context + continuation).ids
    rows = logits_of(oracle, ids)[start - 1 : -1].log_softmax(-1)
    return sum(rows[i, token].item() for i, token in enumerate(ids[start:])), len(ids) - start


def greedy(oracle, backend, question: str) -> str:
    """What transformers' model answers to the question, token by token, without our template or sampler."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    prompt = (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = backend.encode(prompt).ids
    start = len(ids)
    while len(ids) < start + MAX_NEW_TOKENS:
        token = int(logits_of(oracle, ids)[-1].argmax())
        if token == IM_END:
            break
        ids.append(token)
    return backend.decode(ids[start:]).split("\n\n")[0]


def test_log_likelihoods_and_accuracy_are_those_of_transformers(
    python_script, url, tasks, tokenizer_folder, oracle, backend
):
    seen = python_script(
        "lm_eval_client",
        lm="local-completions",
        task="ringserve_choices",
        task_folder=str(tasks),
        model_args={
            "base_url": f"{url}/v1/completions",
            "tokenizer_backend": "huggingface",
            "tokenizer": str(tokenizer_folder),
            "num_concurrent": 1,
            "batch_size": 4,
        },
    )

    num_right = num_right_by_length = 0
    for sample, document in zip(seen["samples"], documents("choices"), strict=True):
        context = f"Question: {document['question']}\nAnswer:"
        expected = [log_likelihood(oracle, backend, context, f" {one}") for one in document["choices"]]
        for (found, _), (wanted, num_tokens) in zip(sample["answers"], expected, strict=True):
            assert float(found) == pytest.approx(wanted, abs=TIE * num_tokens)
        num_right += max(range(len(expected)), key=lambda i: expected[i][0]) == document["answer"]
        by_length = [value / len(one) for (value, _), one in zip(expected, document["choices"], strict=True)]
        num_right_by_length += by_length.index(max(by_length)) == document["answer"]
    assert seen["scores"]["acc,none"] == num_right / len(documents("choices"))
    assert seen["scores"]["acc_norm,none"] == num_right_by_length / len(documents("choices"))
    assert 0 < num_right < len(documents("choices"))  # neither score is one that anything would get


def test_generated_answers_and_exact_match_are_those_of_transformers(
    python_script, url, tasks, oracle, backend
):
    seen = python_script(
        "lm_eval_client",
        lm="local-chat-completions",
        task="ringserve_questions",
        task_folder=str(tasks),
        model_args={"base_url": f"{url}/v1/chat/completions", "num_concurrent": 1},
    )

    texts = [greedy(oracle, backend, document["question"]) for document in documents("questions")]
    firsts = [text.split("\n")[0].split(".")[0] for text in texts]
    num_right = sum(
        first.lower() == document["answer"].lower()
        for first, document in zip(firsts, documents("questions"), strict=True)
    )
    assert [sample["answers"][0] for sample in seen["samples"]] == firsts
    assert seen["scores"]["exact_match,first_sentence"] == num_right / len(texts)
