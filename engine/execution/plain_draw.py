"""Draws in the plain ways, on the device alone: greedy, at a temperature, with top-k, top-p and min-p.

The stages and the draw of `TorchSampler` for rows that ask for nothing else, in a form that never asks the
host: what a row leaves out is neutral in its column, and nothing is branched on. So a recorded step may
hold it. Its uniform numbers come from the host, the same integers as everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from engine.execution import logits as stages
from engine.execution.sampler import drawn_at
from engine.plan import Draw
from engine.request import SamplingParams


class DrawKind(IntEnum):
    """How much a step's draws ask for, in ascending order of it; `RARE` is for the sampler that does all."""

    GREEDY = 0
    RANDOM = 1
    TRUNCATED = 2
    RARE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawColumns:
    """The parameters of R rows; a greedy one has temperature 0."""

    uniforms: Tensor  # [R] float64
    temperature: Tensor  # [R] float64
    top_k: Tensor  # [R] int64, 0 for all
    top_p: Tensor  # [R] float64
    min_p: Tensor  # [R] float64


DrawPlainly = Callable[[DrawKind, Tensor, DrawColumns], Tensor]


def kind_of(draws: Sequence[Draw]) -> DrawKind:
    """The least kind that does all of `draws`."""
    for draw in draws:
        own = draw.sampling
        if draw.is_masked or draw.banned_ids or own.edits_logits or own.logprobs:
            return DrawKind.RARE
    return kind_once_edited(draws)


def kind_once_edited(draws: Sequence[Draw]) -> DrawKind:
    """The same where somebody else edits the logits and tells how probable a token was."""
    kind = DrawKind.GREEDY
    for draw in draws:
        own = draw.sampling
        if own.is_greedy:
            continue
        if own.typical_p != 1.0 or own.xtc_probability:
            return DrawKind.RARE
        kind = max(kind, _random_kind(own))
    return kind


def _random_kind(own: SamplingParams) -> DrawKind:
    is_plain = own.top_k == 0 and own.top_p == 1.0 and own.min_p == 0.0
    return DrawKind.RANDOM if is_plain else DrawKind.TRUNCATED


def draw_plainly(kind: DrawKind, logits: Tensor, columns: DrawColumns) -> Tensor:
    """Token ids [R] of logits [R, V], which are left as they are."""
    assert kind is not DrawKind.RARE
    likeliest = logits.argmax(-1)  # [R]
    if kind is DrawKind.GREEDY:
        return likeliest
    is_random = columns.temperature > 0
    temperature = torch.where(is_random, columns.temperature, 1.0).to(logits.dtype)
    scaled = stages.scale_by_temperature(logits, temperature)
    if kind is DrawKind.TRUNCATED:
        scaled = _truncated(scaled, columns)
    cumulative = torch.softmax(scaled, dim=-1, dtype=torch.float64).cumsum(-1)  # [R, V]
    return torch.where(is_random, drawn_at(columns.uniforms, cumulative, likeliest), likeliest)


def _truncated(logits: Tensor, columns: DrawColumns) -> Tensor:
    """top-k, top-p and min-p of all rows, from one sort."""
    last = logits.shape[-1] - 1
    values = torch.sort(logits, dim=-1, descending=True).values  # [R, V]
    top_k = columns.top_k.unsqueeze(-1)  # [R, 1]
    kth = values.gather(-1, (top_k - 1).clamp(0, last))
    least = torch.where(top_k > 0, kth, -torch.inf)
    logits = logits.masked_fill(logits < least, -torch.inf)
    values = values.masked_fill(values < least, -torch.inf)

    top_p = columns.top_p.unsqueeze(-1).to(logits.dtype)
    mass = torch.exp(values - torch.logsumexp(logits, dim=-1, keepdim=True)).cumsum(-1)
    num_before = (mass < top_p).sum(-1, keepdim=True)  # tokens whose sum falls short
    threshold = values.gather(-1, num_before.clamp(max=last))
    logits = logits.masked_fill((logits < threshold) & (top_p < 1.0), -torch.inf)
    return stages.keep_min_p(logits, columns.min_p.to(logits.dtype))
