"""Real checkpoints made small: random weights in the formats that users bring, written in milliseconds.

Weights are drawn wide enough that attention is sharp and a wrong key shows in the logits.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType

CONFIGS = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
}
ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WEIGHT_SPREAD = 0.25
MAX_CONTEXT = 512


def write_tiny_checkpoint(
    folder: Path,
    family: str = "llama",
    *,
    window: int | None = None,
    num_layers: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    vocab_size: int = 264,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_size: int = 16,
    is_tied: bool = False,
    max_context: int = MAX_CONTEXT,
    eos_ids: tuple[int, ...] = (257,),
    with_tokenizer: bool = True,
    **changes: object,
) -> Path:
    """Write a random checkpoint of `family` in Hugging Face format into `folder`, and return it.

    Qwen's window is given to every layer but the first. `changes` are further config values.
    """
    import transformers

    values: dict[str, object] = {
        "vocab_size": vocab_size,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "max_position_embeddings": max_context,
        "tie_word_embeddings": is_tied,
        "bos_token_id": 256,
        "eos_token_id": list(eos_ids) if len(eos_ids) != 1 else eos_ids[0],
        "head_dim": head_size,
        **_window_values(family, window),
        **changes,
    }
    config = getattr(transformers, CONFIGS[family])(**values)
    model = random_model(config, seed).to(dtype)
    model.save_pretrained(folder)
    if with_tokenizer:
        from tests.support.tiny_tokenizer import write_tiny_tokenizer

        write_tiny_tokenizer(folder)
    return folder


def random_model(config: object, seed: int) -> torch.nn.Module:
    """The model of `config`, with every parameter random: norms around 1, biases around 0."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                center = 1.0 if "norm" in name else 0.0
                parameter.copy_(center + WEIGHT_SPREAD * torch.randn_like(parameter))
    return model.eval()


def oracle_model(folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """transformers' own model of a checkpoint, eager attention, without a cache."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    )
    model.config.use_cache = False
    return model.eval()


def oracle_logits(model: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    """All logits of one full forward pass, [T, V]."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0]


GGUF_SIZES = {"model": 256, "ffn": 256, "heads": 4, "kv_heads": 2, "head": 64, "vocab": 264, "layers": 2}


def write_tiny_gguf(
    folder: Path,
    tensor_type: str,
    *,
    seed: int = 0,
    architecture: str = "llama",
    is_tied: bool = False,
    rope_factors: tuple[float, ...] | None = None,
    metadata: dict[str, int | float | str] | None = None,
    skip: tuple[str, ...] = (),
) -> Path:
    """Write a random GGUF file whose matrices are of `tensor_type`, and return its path.

    Sizes are multiples of the largest quantisation block. `metadata` are further keys, after the
    architecture's name; tensors named in `skip` are left out.
    """
    path = folder / f"tiny-{architecture}-{tensor_type}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, architecture, metadata or {})
    generator = np.random.default_rng(seed)
    for name, shape in gguf_shapes(architecture, is_tied).items():
        if name in skip:
            continue
        if len(shape) == 1:
            center = 0.0 if name.endswith("bias") else 1.0
            writer.add_tensor(name, (center + 0.1 * generator.standard_normal(shape)).astype(np.float32))
        else:
            kind = GGMLQuantizationType[tensor_type]
            writer.add_tensor(name, random_blocks(generator, shape, tensor_type), raw_dtype=kind)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_shapes(architecture: str, is_tied: bool) -> dict[str, tuple[int, ...]]:
    """Name and logical shape of every tensor of the tiny GGUF model."""
    size = GGUF_SIZES
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (size["vocab"], size["model"])}
    shapes["output_norm.weight"] = (size["model"],)
    if not is_tied:
        shapes["output.weight"] = (size["vocab"], size["model"])
    rows = {"q": size["heads"] * size["head"], "k": size["kv_heads"] * size["head"]}
    rows["v"] = rows["k"]
    for layer in range(size["layers"]):
        block = f"blk.{layer}"
        for part, num_rows in rows.items():
            shapes[f"{block}.attn_{part}.weight"] = (num_rows, size["model"])
            if architecture == "qwen2":
                shapes[f"{block}.attn_{part}.bias"] = (num_rows,)
        if architecture == "qwen3":
            shapes[f"{block}.attn_q_norm.weight"] = shapes[f"{block}.attn_k_norm.weight"] = (size["head"],)
        shapes[f"{block}.attn_output.weight"] = (size["model"], rows["q"])
        shapes[f"{block}.ffn_gate.weight"] = shapes[f"{block}.ffn_up.weight"] = (size["ffn"], size["model"])
        shapes[f"{block}.ffn_down.weight"] = (size["model"], size["ffn"])
        shapes[f"{block}.attn_norm.weight"] = shapes[f"{block}.ffn_norm.weight"] = (size["model"],)
    return shapes


def random_blocks(generator: np.random.Generator, shape: tuple[int, ...], tensor_type: str) -> np.ndarray:
    """A matrix of `tensor_type`: quantised by the gguf package where it can, else random valid blocks."""
    values = (0.08 * generator.standard_normal(shape)).astype(np.float32)
    kind = GGMLQuantizationType[tensor_type]
    if tensor_type not in ("Q4_K", "Q5_K", "Q6_K"):
        return gguf.quantize(values, kind)
    elements, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    num_blocks = shape[0] * shape[1] // elements
    blocks = generator.integers(0, 256, (num_blocks, num_bytes), dtype=np.uint8)
    scales = generator.uniform(0.5, 1.5, (num_blocks, 1))
    if tensor_type == "Q6_K":
        blocks[:, -2:] = _half_bytes(5e-5 * scales)
    else:
        unit = 3e-4 if tensor_type == "Q4_K" else 1.5e-4
        blocks[:, 0:2] = _half_bytes(unit * scales)
        blocks[:, 2:4] = _half_bytes(2.3e-3 * scales)
    return blocks.reshape(shape[0], -1)


def _half_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).view(np.uint8)


def _window_values(family: str, window: int | None) -> dict[str, object]:
    if family == "mistral":
        return {"sliding_window": window}
    if family.startswith("qwen") and window is not None:
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    assert window is None, f"a {family} checkpoint states no window"
    return {}


def _write_metadata(
    writer: gguf.GGUFWriter, architecture: str, metadata: dict[str, int | float | str]
) -> None:
    size = GGUF_SIZES
    writer.add_block_count(size["layers"])
    writer.add_context_length(MAX_CONTEXT)
    writer.add_embedding_length(size["model"])
    writer.add_feed_forward_length(size["ffn"])
    writer.add_head_count(size["heads"])
    writer.add_head_count_kv(size["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([bytes([65 + byte % 26]) * (1 + byte // 26) for byte in range(size["vocab"])])
    writer.add_token_types([1] * size["vocab"])
    writer.add_token_merges(["A A", "B B"])
    writer.add_eos_token_id(257)
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key if key.startswith(("tokenizer.", "split.")) else f"{architecture}.{key}", value)
