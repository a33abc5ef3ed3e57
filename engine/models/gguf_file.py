"""`GgufFile`: hyper-parameters and tensors of a GGUF file, under Hugging Face's names.

The `gguf` package parses the file and dequantises. Here its names and conventions are turned into
those of the safetensors format: tensor names, the order of Llama's query and key rows, and rope
factors. Tokenizer arrays are stepped over, not parsed: they belong to the server process.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType

from engine.errors import CheckpointError
from engine.kernels.cpu.packed import StoredRows
from engine.models.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from torch import Tensor

TENSOR_TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
SLICE_ELEMENTS = 1 << 18  # float32 temporaries of this size stay in a core's cache
ROPE_FREQUENCIES = "rope_freqs.weight"
LONGEST_PARSED_ARRAY = 4096

MODEL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Key after the architecture's name -> key of config.json.
NUMBERS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "expert_count": "num_experts",
    "attention.clamp_kqv": "clip_qkv",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logit_scale",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
}
EOS_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class GgufFile:
    """One open GGUF file; tensors are mapped into memory and read where they are copied from."""

    def __init__(self, path: Path, reader: "_Reader") -> None:
        self._path = path
        self._reader = reader
        self._architecture = str(self._metadata("general.architecture"))
        self._tensors = {self._hf_name(tensor.name): tensor for tensor in reader.tensors}
        self._rope_frequencies = self._tensors.pop(ROPE_FREQUENCIES, None)

    @classmethod
    def open(cls, path: Path) -> "GgufFile":
        """Parse the header. CheckpointError for what is no GGUF file, truncated, or one of several parts."""
        try:
            reader = _Reader(path, "c")  # "c": private pages, since torch warns of read-only ones
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
            raise CheckpointError(f"{path} is not a complete GGUF file: {error}") from error
        file = cls(path, reader)
        if (file._number("split.count") or 1) > 1:
            raise CheckpointError(f"{path} is one part of several; merge them with llama-gguf-split --merge")
        return file

    def hyperparameters(self) -> Hyperparameters:
        """The metadata under the names of config.json."""
        values: dict[str, object] = {"model_type": self._architecture}
        for theirs, ours in NUMBERS.items():
            values[ours] = self._architecture_number(theirs)
        values["head_dim"] = self._head_size()
        embedding = self._tensors.get("model.embed_tokens.weight")
        values["vocab_size"] = int(embedding.shape[-1]) if embedding is not None else None
        values["tie_word_embeddings"] = "lm_head.weight" not in self._tensors
        values["rope_parameters"] = self._rope_parameters()
        values["sliding_window"] = self._window()
        eos_ids = [self._metadata(f"tokenizer.ggml.{key}") for key in EOS_KEYS]
        values["eos_token_ids"] = list(dict.fromkeys(eos_id for eos_id in eos_ids if eos_id is not None))
        if values["sliding_window"] is not None:
            values["model_type"] = "mistral"  # GGUF files call Mistral "llama"
        return Hyperparameters(origin=self._path, values=values)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The logical shape of every tensor, by its Hugging Face name."""
        return {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def num_bytes(self, name: str) -> int:
        """Bytes that the tensor takes in the file; CheckpointError for an unsupported tensor type."""
        tensor = self._tensors[name]
        if tensor.tensor_type.name not in TENSOR_TYPES:
            raise CheckpointError(
                f"{self._path}: tensor {tensor.name} is of type {tensor.tensor_type.name}; "
                f"supported are {', '.join(TENSOR_TYPES)}"
            )
        return int(tensor.n_bytes)

    def copy(self, name: str, destination: "Tensor") -> None:
        """Dequantise the tensor into `destination`, of its logical shape, slice by slice."""
        import torch  # noqa: PLC0415  not needed where tensors are taken as they are stored

        tensor = self._tensors[name]
        group = self._row_group(name)
        rows_per_slice = max(1, SLICE_ELEMENTS * len(destination) // max(1, destination.numel()))
        rows_per_slice = max(group, rows_per_slice // group * group)
        for first in range(0, len(destination), rows_per_slice):
            rows = slice(first, first + rows_per_slice)
            place = destination[rows]
            values = _dequantise(tensor.data[rows], tensor.tensor_type).reshape(tuple(place.shape))
            place.copy_(torch.from_numpy(_unpermuted(values, group) if group > 1 else values))

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a tensor that is no matrix."""
        tensor = self._tensors[name]
        return _dequantise(tensor.data, tensor.tensor_type).astype(np.float32)

    def stored(self, name: str) -> StoredRows:
        """The tensor's rows as the file has them, of its mapped memory."""
        tensor = self._tensors[name]
        rows = tensor.data.reshape(len(tensor.data), -1).view(np.uint8)
        group = self._row_group(name)
        order = None if group == 1 else _unpermuted(np.arange(len(rows), dtype=np.int32), group)
        return StoredRows(type_name=tensor.tensor_type.name, stored=rows, row_order=order)

    def _row_group(self, name: str) -> int:
        """How many rows of this tensor must be read together: a head's, where heads are permuted."""
        if self._architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            return int(self._head_size() or 1)
        return 1

    def _rope_parameters(self) -> dict[str, object]:
        prefix = f"{self._architecture}.rope"
        rope: dict[str, object] = {"rope_theta": self._number(f"{prefix}.freq_base")}
        kind, factor = self._metadata(f"{prefix}.scaling.type"), self._number(f"{prefix}.scaling.factor")
        if kind is None and self._number(f"{prefix}.scale_linear"):
            kind, factor = "linear", self._number(f"{prefix}.scale_linear")
        if self._rope_frequencies is not None:
            factors = _dequantise(self._rope_frequencies.data, self._rope_frequencies.tensor_type)
            rope |= {"rope_type": "factors", "frequency_factors": tuple(factors.tolist())}
            if kind not in (None, "none"):
                raise CheckpointError(
                    f"{self._path}: {prefix}.scaling.type {kind!r} beside {ROPE_FREQUENCIES}"
                )
        elif kind not in (None, "none"):
            rope |= {"rope_type": kind, "factor": factor}
        return rope

    def _head_size(self) -> int | float | None:
        """Size of a key head; values of another size, or rotation of a part of each head, are refused."""
        width = self._architecture_number("embedding_length")
        num_heads = self._architecture_number("attention.head_count")
        head_size = self._architecture_number("attention.key_length")
        if head_size is None and width and num_heads:
            head_size = width // num_heads
        for name in ("attention.value_length", "rope.dimension_count"):
            length = self._architecture_number(name)
            if length not in (None, head_size):
                raise CheckpointError(
                    f"{self._path}: {self._architecture}.{name} is {length}; only {head_size}, "
                    "the size of a whole key head, is supported"
                )
        return head_size

    def _window(self) -> int | float | None:
        """The window of all layers, which only Llama's architecture states without saying of which."""
        window = self._architecture_number("attention.sliding_window")
        if window is not None and self._architecture != "llama":
            raise CheckpointError(
                f"{self._path}: {self._architecture}.attention.sliding_window is {window}; which layers "
                "it is for is not stated in a GGUF file, use the safetensors files"
            )
        return window

    def _hf_name(self, name: str) -> str:
        """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; unknown names stay."""
        stem, _, kind = name.rpartition(".")
        if stem in MODEL_NAMES:
            return f"{MODEL_NAMES[stem]}.{kind}"
        match stem.split("."):
            case ["blk", layer, part] if part in LAYER_NAMES:
                return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
        return name

    def _architecture_number(self, key: str) -> int | float | None:
        return self._number(f"{self._architecture}.{key}")

    def _number(self, key: str) -> int | float | None:
        """A number, or a list that says the same for every layer; 0 and absent are None."""
        value = self._metadata(key)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise CheckpointError(f"{self._path}: {key} is {value}; layers that differ are not supported")
            value = value[0]
        if value is None or isinstance(value, int | float):
            return value or None
        raise CheckpointError(f"{self._path}: {key} is {value!r}; it must be a number")

    def _metadata(self, key: str) -> "str | int | float | list[int] | None":
        field = self._reader.get_field(key)
        if field is None:
            return None
        value: str | int | float | list[int] | None = field.contents()
        return value


class _Reader(gguf.GGUFReader):
    """The package's reader, stepping over the long arrays of the tokenizer.

    Tried: parsing them as the package does; 3.7 s for 49,152 tokens and their merges, all unused.
    """

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> "tuple[int, list[np.ndarray], list[int], list[GGUFValueType]]":
        """(size in bytes, no parts, no indices, types) for a long array; anything else as before."""
        if self.byte_order == "S":
            raise ValueError("its byte order is not this machine's")
        if raw_type == GGUFValueType.ARRAY:
            item_type, length = struct.unpack_from("<IQ", self.data.data, orig_offs)
            types = [GGUFValueType.ARRAY, GGUFValueType(item_type)]
            if item_type == GGUFValueType.STRING:
                return 12 + self._strings_size(orig_offs + 12, length), [], [], types
            dtype = self.gguf_scalar_to_np.get(GGUFValueType(item_type))
            if length > LONGEST_PARSED_ARRAY and dtype is not None:
                return 12 + length * np.dtype(dtype).itemsize, [], [], types
        parts: tuple[int, list[np.ndarray], list[int], list[GGUFValueType]] = super()._get_field_parts(
            orig_offs, raw_type
        )
        return parts

    def _strings_size(self, offset: int, count: int) -> int:
        length_at = struct.Struct("<Q").unpack_from
        buffer, end = self.data.data, offset
        for _ in range(count):
            end += 8 + length_at(buffer, end)[0]
        return end - offset


def _dequantise(rows: np.ndarray, tensor_type: GGMLQuantizationType) -> np.ndarray:
    """The values of packed rows, flat: float32, but float16 ones stay as they are.

    As one long row, since the package splits many rows into groups of 16, twice as slow.
    """
    if tensor_type.name == "F16":
        return rows
    values: np.ndarray = gguf.dequantize(np.asarray(rows).reshape(1, -1), tensor_type).reshape(-1)
    return values


def _unpermuted(values: np.ndarray, head_size: int) -> np.ndarray:
    """Rows of each head from (pair, half) order, in which GGUF's Llama rotates, to (half, pair).

    With head_size 6, rows 0 1 2 3 4 5 of the file are rows 0 3 1 4 2 5 of the head.
    """
    in_pairs = values.reshape(-1, head_size // 2, 2, *values.shape[1:])  # [heads, pair, half, ...]
    return in_pairs.swapaxes(1, 2).reshape(values.shape)
