"""From a checkpoint's architecture to its family: who reads its spec, names its weights.

A new family is a module of its own, a line here, and one in `blocks.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import CheckpointError
from engine.model_spec import ModelSpec
from engine.models import llama, qwen
from engine.models.gguf_file import GgufFile
from engine.models.hyperparameters import Hyperparameters
from engine.models.llama import WeightTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family. `name` is also the `model_type` of its configs and GGUF files."""

    name: str
    architecture: str
    read_spec: Callable[[Hyperparameters], ModelSpec]
    weight_map: Callable[[ModelSpec], dict[str, WeightTarget]]


FAMILIES = (
    Family(
        name="llama",
        architecture="LlamaForCausalLM",
        read_spec=llama.read_llama_spec,
        weight_map=llama.weight_map,
    ),
    Family(
        name="mistral",
        architecture="MistralForCausalLM",
        read_spec=llama.read_mistral_spec,
        weight_map=llama.weight_map,
    ),
    Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        read_spec=qwen.read_qwen2_spec,
        weight_map=qwen.qwen2_weight_map,
    ),
    Family(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        read_spec=qwen.read_qwen3_spec,
        weight_map=qwen.qwen3_weight_map,
    ),
)


def read_spec(path: Path) -> ModelSpec:
    """The numbers of the model in `path`, a folder in Hugging Face format or a `.gguf` file.

    CheckpointError when it cannot be read, or is of an architecture or variant not supported.
    """
    if path.is_dir():
        config = Hyperparameters.load(path)
    elif path.is_file():
        config = GgufFile.open(path).hyperparameters()
    else:
        raise CheckpointError(f"{path} does not exist; it must be a model folder or a .gguf file")
    return _family_of(config).read_spec(config)


def family_named(name: str) -> Family:
    """The family that a spec names."""
    return next(family for family in FAMILIES if family.name == name)


def _family_of(config: Hyperparameters) -> Family:
    """By `architectures`, or where a config has none, by `model_type`."""
    stated = config.texts("architectures") or (str(config.values.get("model_type")),)
    for family in FAMILIES:
        if stated[0] in (family.architecture, family.name):
            return family
    supported = ", ".join(family.architecture for family in FAMILIES)
    raise CheckpointError(
        f"{config.origin}: the architecture is {stated[0]}; supported are {supported} "
        f"(GGUF: {', '.join(family.name for family in FAMILIES)})"
    )
