"""What the hardware allows: the formulas by which every speed is given as a fraction of its limit.

    decode step  t = (weight bytes + Σ_sequences min(n, W) · bytes per token) / bandwidth
    pre-fill     F = tokens · (2 · parameters + 4 · layers · heads · head_dim · mean visible keys)

Parameters of a table of embeddings that is only looked up cost nothing.
"""

from dataclasses import dataclass

from engine.model_spec import ModelSpec

H100_BANDWIDTH = 3.0e12
"""Bytes a second that copies reach on an H100 SXM: its memory's 3.35e12, as measured."""

H100_FLOPS = 798e12
"""bfloat16 operations a second that large products reach on an H100 SXM, as measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a model costs, in bytes and operations."""

    spec: ModelSpec
    weight_itemsize: float = 2.0
    kv_itemsize: float = 2.0
    kv_scale_bytes: int = 0

    @property
    def num_computed_parameters(self) -> int:
        """Parameters that every token is multiplied with, the head among them."""
        spec = self.spec
        heads = spec.num_heads + 2 * spec.num_kv_heads
        attention = (
            spec.model_size * spec.head_size * heads + spec.num_heads * spec.head_size * spec.model_size
        )
        feed_forward = 3 * spec.model_size * spec.ffn_size
        return spec.num_layers * (attention + feed_forward) + spec.vocab_size * spec.model_size

    @property
    def weight_bytes(self) -> float:
        """What a decode step reads of the weights."""
        return self.num_computed_parameters * self.weight_itemsize

    @property
    def token_bytes(self) -> float:
        """What the cache holds of a token."""
        head_bytes = self.spec.head_size * self.kv_itemsize + self.kv_scale_bytes
        return 2 * self.spec.num_layers * self.spec.num_kv_heads * head_bytes

    def visible(self, length: int) -> int:
        """Keys that a query behind `length` tokens sees in each layer; windows are taken to be equal."""
        window = self.spec.layer_windows[0]
        return length if window is None else min(length, window)

    def mean_visible(self, num_tokens: int) -> float:
        """Of the queries of a prompt, on average."""
        window = self.spec.layer_windows[0]
        if window is None or num_tokens <= window:
            return (num_tokens + 1) / 2
        return (window * (window + 1) / 2 + (num_tokens - window) * window) / num_tokens

    def decode_step_s(self, num_rows: int, length: float, bandwidth: float = H100_BANDWIDTH) -> float:
        """Seconds of a step in which `num_rows` sequences of `length` tokens decode."""
        visible = self.visible(int(length))
        return (self.weight_bytes + num_rows * visible * self.token_bytes) / bandwidth

    def decode_rate(self, num_rows: int, length: float, bandwidth: float = H100_BANDWIDTH) -> float:
        """Tokens a second."""
        return num_rows / self.decode_step_s(num_rows, length, bandwidth)

    def prefill_s(self, num_tokens: int, flops: float = H100_FLOPS) -> float:
        """Seconds of a prompt's computation."""
        spec = self.spec
        attention = 4 * spec.num_layers * spec.num_heads * spec.head_size * self.mean_visible(num_tokens)
        return num_tokens * (2 * self.num_computed_parameters + attention) / flops

    def saturated_rate(self, num_rows: int, num_inputs: int, num_outputs: int) -> float:
        """Output tokens a second where `num_rows` sequences run at any time, at all stages of their lives.

        A sequence costs the computation of its prompt, and its share of as many decode steps as it has outputs.
        """
        lengths = [num_inputs + num_outputs * (step + 0.5) / 16 for step in range(16)]
        step_s = sum(self.decode_step_s(num_rows, length) for length in lengths) / len(lengths)
        return num_outputs / (self.prefill_s(num_inputs) + num_outputs * step_s / num_rows)
