"""`ModelSpec`: a model's numbers, read once from its checkpoint and never changed."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary embedding: base frequency, and the scaling of long-context variants.

    `scaling` is "none", "linear" (`factor`), "llama3" (`factor` to `original_max_context`), or
    "factors": frequency i is divided by `frequency_factors[i]`, as GGUF files state llama3's.
    """

    theta: float
    scaling: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_context: int = 8192
    frequency_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The numbers of a decoder-only transformer.

    `layer_windows[l]` is how many most recent positions a query of layer l sees, itself included;
    None for all. `eos_ids` are the tokens that end a sequence.
    """

    family: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    model_size: int
    ffn_size: int
    vocab_size: int
    max_context: int
    norm_eps: float
    rope: RopeSpec
    layer_windows: tuple[int | None, ...]
    eos_ids: tuple[int, ...]
    has_tied_head: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False

    def with_window(self, window: int | None) -> "ModelSpec":
        """The same model with `window` imposed on every layer; None leaves it as it is.

        A layer that already has a smaller window keeps it.
        """
        if window is None:
            return self
        windows = tuple(window if own is None else min(own, window) for own in self.layer_windows)
        return replace(self, layer_windows=windows)
