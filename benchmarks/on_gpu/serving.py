"""The whole server over HTTP with 256 streams at once, against the engine's own rate for the same load.

The server and its engine process are the real programs, but for weights, which are drawn where a
checkpoint's would be read: the model's folder holds a config and a byte tokenizer alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.rig import Dials, Rig
from benchmarks.on_gpu.tokens import write_byte_tokenizer
from engine.model_spec import ModelSpec

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150.0
NEEDED = ("fastapi", "uvicorn", "pydantic_settings", "sse_starlette", "llguidance", "gguf")
ADDRESS = re.compile(r"address=(http://127\.0\.0\.1:\d+)|(http://127\.0\.0\.1:\d+)")


def serving(place: Place) -> Figures:
    """Output tokens a second over HTTP, alone, and the share of one in the other."""
    for name in NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"no {name}", name=name)
    num_streams, num_requests = place.size(256, 4), place.size(768, 8)
    num_inputs, num_outputs = place.size(128, 8), place.size(128, 8)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(folder, place.spec)
        over_http = _over_http(place, folder, (num_streams, num_requests, num_inputs, num_outputs))
    rig = Rig.make(place, Dials(max_running=num_streams))
    for _ in range(num_requests):
        rig.add(num_inputs, num_outputs)
    start = time.perf_counter()
    rig.run()
    alone = num_requests * num_outputs / (time.perf_counter() - start)
    rate = over_http["output_tokens_per_s"]
    return {
        "tokens_per_s_over_http": rate,
        "tokens_per_s_alone": alone,
        "share": rate / alone,
        "http": over_http,
    }


def write_model(folder: Path, spec: ModelSpec) -> None:
    """A folder in Hugging Face format without weights."""
    folder.mkdir()
    config = {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": spec.vocab_size,
        "hidden_size": spec.model_size, "intermediate_size": spec.ffn_size, "head_dim": spec.head_size,
        "num_hidden_layers": spec.num_layers, "num_attention_heads": spec.num_heads, "hidden_act": "silu",
        "num_key_value_heads": spec.num_kv_heads, "max_position_embeddings": spec.max_context,
        "rms_norm_eps": spec.norm_eps, "rope_theta": spec.rope.theta, "sliding_window": spec.layer_windows[0],
        "eos_token_id": spec.eos_ids[0], "bos_token_id": 1, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header = b"{}"
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    write_byte_tokenizer(folder, spec.vocab_size)


def _over_http(place: Place, folder: Path, load: tuple[int, int, int, int]) -> Figures:
    num_streams, num_requests, num_inputs, num_outputs = load
    log = folder.parent / "server.log"
    command = [
        sys.executable, "-m", "benchmarks.on_gpu.random_server", str(folder), "--port", "0",
        "--max-running", str(num_streams), "--max-waiting", "4096", "--max-step-tokens", str(max(1024, num_streams)),
        "--max-chunk-tokens", "512", "--no-prefix-cache", "--device", place.device.type,
    ]  # fmt: skip
    command += ["--dtype", "float32", "--kernels", "reference"] if place.is_tiny else ["--dtype", "bfloat16"]
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
    try:
        url = _wait_ready(server, log)
        result = folder.parent / "load.json"
        last_id = place.spec.vocab_size - 1
        subprocess.run(
            [
                sys.executable, "-m", "benchmarks.load", url, "--requests", str(num_requests),
                "--concurrency", str(num_streams), "--input", str(num_inputs), "--output", str(num_outputs),
                "--ids", f"3:{last_id}", "--server", "ringserve", "--json", str(result),
            ],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, env=_environment(),
        )  # fmt: skip
        return json.loads(result.read_text())["summary"]
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _wait_ready(server: subprocess.Popen[bytes], log: Path) -> str:
    """The server's address, once it takes requests."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        text = log.read_text()
        if server.poll() is not None:
            break
        found = ADDRESS.search(text)
        if found:
            url = found.group(1) or found.group(2)
            try:
                with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return url
            except (urllib.error.HTTPError, OSError):
                pass
        time.sleep(0.1)
    raise RuntimeError(f"the server was never ready:\n{log.read_text()[-3000:]}")
