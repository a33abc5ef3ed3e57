"""How far each format's log-probabilities are from those of the same weights in float32.

    python -m benchmarks.perplexity MODEL.gguf [--only int4 …] [--llama-cpp PYTHON] [--results FILE]

The text is one window, scored from its second token on as the server scores a prompt. The oracle is
transformers in float32 with the file's weights dequantised. `PYTHON` is an interpreter that has
llama-cpp-python. Each row: perplexity, its ratio to the oracle's, the mean and the largest |Δ| of a
token's log-probability.

The safetensors models are those weights, written once as they are and once with the channels in
another order. This changes no result, but no group of 32 is then one of the file's: a format in
groups finds the file's own groups, on the grid that they were rounded to, in the first model only.
"""

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.channels import permute_channels
from benchmarks.machine import describe_machine
from engine.build import build_engine
from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulingConfig
from engine.models.gguf_file import GgufFile
from engine.request import Request, SamplingParams
from engine.scheduling.sequence import make_sequences
from engine.text.tokenizer import Tokenizer

TEXT = Path(__file__).parents[1] / "tests" / "data" / "perplexity.txt"
SCORER = Path(__file__).with_name("llama_cpp_scores.py")
FILE, PLAIN, PERMUTED = "GGUF file", "safetensors", "safetensors, permuted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to compute the text."""

    source: str
    kernels: str = "native"
    dtype: str = "auto"
    quantization: str = "none"
    kv_dtype: str = "auto"

    @property
    def label(self) -> str:
        """Its row's name."""
        weights = "as stored" if self.source == FILE else "bfloat16" if self.dtype == "auto" else self.dtype
        if self.quantization != "none":
            weights = self.quantization
        cache = (
            self.kv_dtype if self.kv_dtype != "auto" else "bfloat16" if self.dtype == "auto" else self.dtype
        )
        return f"{self.source} | {weights} | {cache} | {self.kernels}"


CASES = (
    Case(source=FILE),
    Case(source=FILE, kv_dtype="int8"),
    Case(source=FILE, kernels="reference", dtype="float32"),
    Case(source=FILE, kernels="reference", dtype="float32", kv_dtype="bfloat16"),
    Case(source=FILE, kernels="reference", dtype="float32", kv_dtype="int8"),
    Case(source=PLAIN, kernels="reference", dtype="float32"),
    Case(source=PLAIN, kernels="reference", dtype="bfloat16"),
    Case(source=PLAIN),
    Case(source=PLAIN, quantization="int8"),
    Case(source=PLAIN, quantization="int4"),
    Case(source=PERMUTED),
    Case(source=PERMUTED, quantization="int8"),
    Case(source=PERMUTED, quantization="int8", kv_dtype="int8"),
    Case(source=PERMUTED, quantization="int4"),
    Case(source=PERMUTED, quantization="int4", kv_dtype="int8"),
)


class Nowhere:
    """Takes the messages of an engine that has nobody to send them to."""

    def put(self, message: object) -> None:
        """Forget it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, help="a .gguf file")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name has one of these words")
    parser.add_argument("--llama-cpp", help="a Python that has llama-cpp-python")
    parser.add_argument("--results", type=Path, help="file for all figures, as JSON")
    flags = parser.parse_args()
    token_ids = Tokenizer.load(flags.model).encode(flags.text.read_text(encoding="utf-8"))
    cases = [case for case in CASES if any(word in case.label for word in flags.only)]
    print(f"{describe_machine()}, torch {torch.__version__}, transformers {version('transformers')}")
    print(f"{flags.model.name}: {len(token_ids)} tokens of {flags.text.name}\n", flush=True)
    print(
        "| weights from | weights | cache | kernels | perplexity | ratio | mean \\|Δ\\| | largest \\|Δ\\| |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary)
        model = transformers_model(flags.model)
        expected = oracle_logprobs(model, token_ids)
        rows["transformers"] = report("transformers | float32 | none | eager", expected, expected)
        if any(case.source == PLAIN for case in cases):
            model.save_pretrained(folders / PLAIN)
        if any(case.source == PERMUTED for case in cases):
            permute_channels(model, seed=0)
            model.save_pretrained(folders / PERMUTED)
        del model
        for case in cases:
            path = flags.model if case.source == FILE else folders / case.source
            rows[case.label] = report(case.label, our_logprobs(case, path, token_ids), expected)
    if flags.llama_cpp:
        found = llama_cpp_logprobs(flags.llama_cpp, flags.model, token_ids)
        rows["llama.cpp"] = report("GGUF file | as stored | float16 | llama.cpp", found, expected)
    if flags.results:
        flags.results.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1))


def transformers_model(path: Path) -> Any:  # its classes have no types
    """The oracle: the file's weights in float32."""
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    source = GgufFile.open(path)
    for name in source.shapes():
        source.copy(name, model.get_parameter(name).data)
    model.tie_weights()
    return model.eval()


def oracle_logprobs(model: Any, token_ids: Sequence[int]) -> Tensor:  # its classes have no types
    """Of every token but the first, given those before it."""
    with torch.inference_mode():
        logits = model(torch.tensor([list(token_ids)]), use_cache=False).logits[0, :-1]
    return chosen(logits.float(), token_ids)


def our_logprobs(case: Case, path: Path, token_ids: Sequence[int]) -> Tensor:
    """The same by the engine, as it answers a request that asks for its prompt's."""
    config = EngineConfig(
        model=ModelConfig(
            path=str(path),
            model_id="model",
            device="cpu",
            dtype=case.dtype,
            kernels=case.kernels,
            quantization=case.quantization,
        ),
        cache=CacheConfig(kv_dtype=case.kv_dtype),
        scheduling=SchedulingConfig(),
    )
    built = build_engine(config, lambda: None, Nowhere())  # type: ignore[arg-type] # all that is used of one
    sampling = SamplingParams(seed=0, max_tokens=0, prompt_logprobs=0)
    request = Request(request_id="text", prompt_ids=tuple(token_ids), sampling=sampling)
    built.scheduler.add(make_sequences(request, 0, [built.pool.layout.new_tables()]))
    found: list[float] = []
    while built.scheduler.has_work:
        plan = built.scheduler.plan()
        updates = built.scheduler.commit(plan, built.loop.runner.finish(built.loop.runner.begin(plan)))
        for _, scores in updates.prompt_scores:
            found += scores.logprobs
    return torch.tensor(found)


def llama_cpp_logprobs(python: str, path: Path, token_ids: Sequence[int]) -> Tensor:
    """The same by llama.cpp, in a process of its own."""
    question = json.dumps({"model": str(path), "token_ids": list(token_ids)})
    answer = subprocess.run(
        [python, str(SCORER)], input=question, stdout=subprocess.PIPE, text=True, check=True
    )
    return torch.tensor(json.loads(answer.stdout))


def chosen(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Log-probabilities of the tokens that followed."""
    following = torch.tensor(list(token_ids[1:]))[:, None]
    return logits.gather(-1, following).squeeze(-1) - logits.logsumexp(-1)


def report(label: str, found: Tensor, expected: Tensor) -> dict[str, float]:
    """Print a row, and return its figures."""
    error = (found - expected).abs()
    figures = {
        "perplexity": math.exp(-found.mean()),
        "ratio": math.exp(expected.mean() - found.mean()),
        "mean_error": error.mean().item(),
        "largest_error": error.max().item(),
    }
    print(
        f"| {label} | {figures['perplexity']:.4f} | {figures['ratio']:.4f} | {figures['mean_error']:.4f} "
        f"| {figures['largest_error']:.3f} |",
        flush=True,
    )
    return figures


if __name__ == "__main__":
    main()
