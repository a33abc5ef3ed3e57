"""The stages between logits and the distribution a token is drawn from, in their order.

    mask · bias · penalties · temperature · top-k · top-p · min-p · typical-p · XTC

A stage is a function of logits `[R, V]` and per-row parameters; one that no row asks for is not
run. Of the masks a row's own packed one comes first and always holds; tokens that are not allowed, or
banned, come after it and give way where they would leave nothing. Rows never influence each other. The stages up to the penalties change single entries and do
it in place, on a copy that their caller made; the others return new logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Most probable entries looked at before a whole row is sorted for top-p.
NUM_HEAD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Some entries of logits, none twice, and a value for each."""

    rows: Tensor  # [P] int64
    columns: Tensor  # [P] int64
    values: Tensor  # [P]

    @classmethod
    def gather(
        cls, found: Sequence[tuple[int, Sequence[int], Sequence[float]]], *, like: Tensor
    ) -> "Entries | None":
        """Entries from (row, columns, values), on the device and in the dtype of `like`; None if none."""
        sizes = [len(columns) for _, columns, _ in found]
        if not any(sizes):
            return None
        rows = np.repeat(np.array([row for row, _, _ in found], dtype=np.int64), sizes)
        columns = np.fromiter(chain.from_iterable(own for _, own, _ in found), dtype=np.int64)
        values = np.fromiter(chain.from_iterable(own for _, _, own in found), dtype=np.float64)
        return cls(
            rows=torch.from_numpy(rows).to(like.device),
            columns=torch.from_numpy(columns).to(like.device),
            values=torch.from_numpy(values).to(like.device, like.dtype),
        )


def unset_entries(rows: Sequence[int], bits: npt.NDArray[np.int32], *, like: Tensor) -> Tensor:
    """Which entries `[R, V]` of logits like `like` are left out by masks for some rows, ascending.

    `bits` `[m, V / 32]` allow entry t where bit t % 32 of word t // 32 is set; other rows keep all.
    """
    num_rows, vocab_size = like.shape
    unset = np.zeros((num_rows, bits.shape[1]), dtype=np.int32)  # [R, V / 32]
    unset[list(rows)] = ~bits
    if like.device.type != "cpu":
        return unpacked(torch.from_numpy(unset).to(like.device, non_blocking=True), vocab_size)
    # Ten times faster than shifts of words, at which a GPU is better.
    octets = np.unpackbits(unset.view(np.uint8), axis=1, count=vocab_size, bitorder="little")
    return torch.from_numpy(octets).view(torch.bool)


def unpacked(bits: Tensor, vocab_size: int) -> Tensor:
    """Bits `[R, V / 32]` int32 as truth values `[R, V]`."""
    places = torch.arange(32, dtype=torch.int32, device=bits.device)
    return ((bits[:, :, None] >> places) & 1).flatten(1)[:, :vocab_size].bool()


def mask_all_but(logits: Tensor, allowed: Entries) -> None:
    """In the rows that `allowed` names, leave no other entry than those, but where that leaves nothing."""
    is_named = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)  # [R]
    is_named[allowed.rows] = True
    is_masked = is_named[:, None].repeat(1, logits.shape[-1])  # [R, V]
    is_masked[allowed.rows, allowed.columns] = False
    is_masked[logits.masked_fill(is_masked, -torch.inf).amax(-1) == -torch.inf] = False
    logits.masked_fill_(is_masked, -torch.inf)


def mask(logits: Tensor, banned: Entries) -> None:
    """Leave out the entries `banned`, but in a row where nothing else is left."""
    before = logits[banned.rows, banned.columns]
    logits[banned.rows, banned.columns] = -torch.inf
    is_empty = logits.amax(-1) == -torch.inf  # [R]
    logits[banned.rows, banned.columns] = torch.where(is_empty[banned.rows], before, -torch.inf)


def add_bias(logits: Tensor, biases: Entries) -> None:
    """Add each bias to its logit.

    Source: OpenAI's API reference, `logit_bias`: added to the logits before sampling.
    """
    logits[biases.rows, biases.columns] += biases.values


def penalize_seen(logits: Tensor, seen: Entries) -> None:
    """Make tokens of prompt or output less probable by the row's factor r: x / r above 0, x * r below.

    Source: Keskar et al. 2019, CTRL (arXiv 1909.05858), section 4.1, which divides; multiplied below
    0 as transformers' `RepetitionPenaltyLogitsProcessor` does, so that r > 1 never helps a token.
    """
    logit = logits[seen.rows, seen.columns]
    logits[seen.rows, seen.columns] = torch.where(logit > 0, logit / seen.values, logit * seen.values)


def subtract_penalties(logits: Tensor, penalties: Entries) -> None:
    """Take each penalty from its logit: presence and frequency penalties, or those of DRY.

    Of a token that is c > 0 times in the output, presence + c * frequency; the prompt does not count.
    Source: OpenAI's guide on text generation, "Frequency and presence penalties". For DRY see
    `history.repetition_run_penalties`.
    """
    logits[penalties.rows, penalties.columns] -= penalties.values


def scale_by_temperature(logits: Tensor, temperature: Tensor) -> Tensor:
    """Logits less their row's largest, divided by the row's temperature `[R]`, which is above 0.

    The shift changes no probability, and keeps the quotient finite at the top for any temperature.
    """
    return (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]  # [R, V]


def keep_top_k(logits: Tensor, top_k: Tensor) -> Tensor:
    """Mask all but each row's `top_k` largest logits; 0 keeps all. Equals of the k-th stay too.

    Source: Fan et al. 2018, Hierarchical neural story generation (arXiv 1805.04833).
    """
    largest = int(top_k.max())
    values = torch.topk(logits, min(largest, logits.shape[-1]), dim=-1).values  # [R, k]
    last = (top_k.clamp(1, values.shape[-1]) - 1)[:, None]
    threshold = values.gather(-1, last)  # [R, 1]
    return logits.masked_fill((logits < threshold) & (top_k > 0)[:, None], -torch.inf)


def keep_top_p(logits: Tensor, top_p: Tensor) -> Tensor:
    """Mask all but the fewest most probable tokens whose probabilities sum to `top_p` `[R]` or more.

    Equals of the least probable one that stays, stay too. Rows with top_p 1 are left as they are.
    Source: Holtzman et al. 2019, The curious case of neural text degeneration (arXiv 1904.09751).
    """
    log_total = torch.logsumexp(logits, dim=-1, keepdim=True)  # [R, 1]
    num_head = min(NUM_HEAD, logits.shape[-1])
    values = torch.topk(logits, num_head, dim=-1).values  # [R, k]
    mass = torch.exp(values - log_total).cumsum(-1)
    if bool((mass[:, -1] < top_p).any()):
        values = torch.sort(logits, dim=-1, descending=True).values  # [R, V]
        mass = torch.exp(values - log_total).cumsum(-1)
    num_before = (mass < top_p[:, None]).sum(-1, keepdim=True)  # tokens whose sum falls short
    threshold = values.gather(-1, num_before.clamp(max=values.shape[-1] - 1))
    return logits.masked_fill((logits < threshold) & (top_p < 1.0)[:, None], -torch.inf)


def keep_min_p(logits: Tensor, min_p: Tensor) -> Tensor:
    """Mask tokens less probable than `min_p` `[R]` times the row's most probable one; 0 keeps all.

    Source: Nguyen et al. 2024, Turning up the heat: min-p sampling (arXiv 2407.01082).
    """
    threshold = logits.amax(-1, keepdim=True) + torch.log(min_p)[:, None]  # [R, 1]
    return logits.masked_fill(logits < threshold, -torch.inf)


def keep_typical(logits: Tensor, typical_p: Tensor) -> Tensor:
    """Mask all but the fewest tokens, nearest in surprise to the row's entropy, that sum to `typical_p`.

    The surprise of a token is -log p, and the entropy is its mean. Equals of the last one that stays,
    stay too. Rows with typical_p 1 are left as they are.
    Source: Meister et al. 2022, Locally typical sampling (arXiv 2202.00666).
    """
    logprobs = torch.log_softmax(logits, dim=-1)  # [R, V]
    probabilities = logprobs.exp()
    entropy = torch.special.entr(probabilities).sum(-1, keepdim=True)  # [R, 1]
    distances = (logprobs + entropy).abs()  # [R, V], infinite where masked
    nearest, order = torch.sort(distances, dim=-1)
    mass = probabilities.gather(-1, order).cumsum(-1)
    num_before = (mass < typical_p[:, None]).sum(-1, keepdim=True)
    threshold = nearest.gather(-1, num_before.clamp(max=logits.shape[-1] - 1))  # [R, 1]
    return logits.masked_fill((distances > threshold) & (typical_p < 1.0)[:, None], -torch.inf)


def exclude_top_choices(logits: Tensor, threshold: Tensor) -> Tensor:
    """Of the tokens with at least probability `threshold` `[R]`, mask all but the least probable.

    A row with fewer than two such tokens keeps them all; above 1 the threshold switches the stage off,
    and at 0 it takes in every token that can be drawn at all.
    Source: XTC as proposed in text-generation-webui, pull request 6335.
    """
    probabilities = torch.softmax(logits, dim=-1)
    is_top = (probabilities >= threshold[:, None]) & (probabilities > 0)
    least = probabilities.masked_fill(~is_top, torch.inf).amin(-1, keepdim=True)  # [R, 1]
    return logits.masked_fill(is_top & (probabilities > least), -torch.inf)
