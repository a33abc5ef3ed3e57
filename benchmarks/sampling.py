"""Time per output token of sampling alone: plain, and with each thing a request may ask for.

    python benchmarks/sampling.py [--rows 8] [--history 512] [--seconds 1]

Random logits stand in for a model, so the figures are what the stages add to a step, for a tiny
vocabulary and for one of 49,152 tokens. The plain row is drawn with temperature 1; `greedy` takes
the largest logit. One thread of torch.
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch

from engine.execution.sampler import sample
from engine.execution.sampling_rows import SamplingRows
from engine.plan import Draw
from engine.request import SamplingParams

VOCABULARIES = (264, 49_152)
HABITS: dict[str, dict[str, object]] = {
    "plain": {},
    "greedy": {"temperature": 0.0},
    "logprobs": {"logprobs": True},
    "logprobs, 5 alternatives": {"logprobs": True, "num_top_logprobs": 5},
    "logprobs, 20 alternatives": {"logprobs": True, "num_top_logprobs": 20},
    "presence and frequency penalty": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "repetition penalty": {"repetition_penalty": 1.1},
    "DRY": {"dry_multiplier": 0.8},
    "bias of 10 ids": {"logit_bias": tuple((token_id, 1.0) for token_id in range(10))},
    "100 allowed ids": {"allowed_ids": tuple(range(100))},
    "10 bad words": {"bad_words_ids": tuple((token_id, token_id + 1) for token_id in range(10))},
    "top-k 40": {"top_k": 40},
    "top-p 0.9": {"top_p": 0.9},
    "min-p 0.05": {"min_p": 0.05},
    "typical-p 0.9": {"typical_p": 0.9},
    "XTC": {"xtc_probability": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="sequences in the step")
    parser.add_argument("--history", type=int, default=512, help="tokens so far of each")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each is timed")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, rows {flags.rows}, history {flags.history}\n")
    print(
        f"| {'µs per output token':32} | "
        + " | ".join(f"{size:>9} ids   ratio" for size in VOCABULARIES)
        + " |"
    )
    print(f"|{'-' * 34}|" + "|".join("-" * 23 for _ in VOCABULARIES) + "|")
    plain: dict[int, float] = {}
    for name, sampling in HABITS.items():
        cells = []
        for size in VOCABULARIES:
            token_s = time_per_token_s(size, sampling, flags)
            plain.setdefault(size, token_s)
            cells.append(f"{1e6 * token_s:13.1f} {token_s / plain[size]:7.2f}")
        print(f"| {name:32} | " + " | ".join(cells) + " |")


def time_per_token_s(vocab_size: int, sampling: dict[str, object], flags: argparse.Namespace) -> float:
    """Seconds to gather the parameters of one row, to draw its token and to bring back its scores."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(flags.rows, vocab_size, generator=generator)
    history = torch.randint(0, vocab_size, (flags.rows, flags.history), generator=generator).tolist()
    draws = [
        Draw(
            sampling=SamplingParams(**{"max_tokens": 1, "seed": row, **sampling}),  # type: ignore[arg-type]
            choice=0,
            history=tuple(history[row]),
            num_prompt=flags.history // 2,
        )
        for row in range(flags.rows)
    ]

    def step() -> None:
        rows = SamplingRows.gather(draws, [flags.history] * len(draws), like=logits)
        token_ids, scores = sample(logits, rows)
        token_ids.tolist()
        if scores is not None:
            scores.to_rows()

    return best_time_s(step, flags.seconds) / flags.rows


def best_time_s(step: Callable[[], None], seconds: float) -> float:
    """The shortest of many runs, which other work on the machine disturbed the least."""
    with torch.inference_mode():
        step()
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            step()
            best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
