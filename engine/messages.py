"""What crosses the border between the server process and the engine process.

All are frozen, survive pickling and compare equal; those that every step sends are named tuples,
which the interpreter packs and unpacks by itself. A channel belongs to exactly one engine
process, so a late message of a dead one has no channel to arrive on, and none carries a generation.

To the engine:   Configure first; then Submit, Abort, Finish, ClearCache, Inspect; Drain before the end.
                 A Vocabulary comes before the first Submit with a grammar.
To the server:   Loading until Ready (or Failed); then Accepted or Refused for each Submit;
                 Updates after a step, Pulse when there is nothing to tell; CacheCleared for each
                 ClearCache and Inspected for each Inspect; Drained.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.prefix_report import PrefixReport
from engine.request import FinishReason, Request
from engine.stats import EngineStats, EngineView
from engine.token_scores import TokenScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """First message to a new engine process."""

    config: EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Generate for `request`; its choice `c` is the sequence `first_sequence_id + c`."""

    request: Request
    first_sequence_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Nobody wants this request any more: end all its choices, without an answer."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The text of this choice matched a stop string: end it alone, without an answer."""

    request_id: str
    choice: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearCache:
    """Forget what the prefix cache knows; the answer is CacheCleared with the same `order_id`."""

    order_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Accept nothing more, finish what is under way, then say Drained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Tell what is live, between two steps, as the `Inspected` of the same `number`."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The exact bytes of every token, in order of ids, and which of them are no text.

    The engine process has no tokenizer; only grammars need to know what tokens spell.
    """

    token_bytes: tuple[bytes, ...] = field(repr=False)
    special_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How far start-up has come: `done` of `total` bytes in `stage` ("weights", ...)."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the server must know of the loaded model.

    `max_context` is the most positions (prompt plus output) one request may take: the least of
    what the model was trained for, `--max-context`, and what fits into the pool alone.
    """

    model_id: str
    family: str
    device: str
    dtype: str
    vocab_size: int
    eos_ids: tuple[int, ...]
    max_context: int
    window: int | None
    weight_bytes: int
    block_size: int
    block_bytes: int
    num_blocks: int


class Load(NamedTuple):
    """How busy the engine is, when it says so.

    `num_preemptions` counts since the engine process started.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_free_blocks: int = 0
    num_steps: int = 0
    num_preemptions: int = 0


NO_LOAD = Load()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The engine answers requests from now on."""

    card: ModelCard
    load: Load = NO_LOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Start-up ended with an error that trying again would not mend; the process exits with 2."""

    error: EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The request is queued."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request can never be served, and why."""

    request_id: str
    error: EngineError


class Updates(NamedTuple):
    """All of a step's news, in columns: no object per token.

    Row r tells of sequence `sequence_ids[r]`, which got the next `num_tokens[r]` of the flat
    `token_ids` (several with speculation, none when only its end is told). `logprobs` and `ranks` are
    flat too, and have entries for the tokens of those sequences only whose request asked. `num_top`
    is empty when nobody asked for alternatives; otherwise each token of row r that has a
    log-probability has `num_top[r]` entries in `top_ids` and `top_logprobs`. `prompt_scores` tells
    how probable the next tokens of a sequence's prompt were, from its second one on. `num_cached`
    names sequences that began behind a cached prefix, with its length, at their first token, and
    `prefix_reports` tells more of it where the request asked. `failures` names sequences that ended
    with an error; they are in no row. `waited_s` names sequences whose first
    chunk was computed, with the seconds they had waited for it. `stats` comes at most once a second.

        sequence_ids (4, 9)  num_tokens (1, 2)  token_ids (17, 5, 6)  finish_reasons (None, STOP)
    """

    sequence_ids: tuple[int, ...] = ()
    num_tokens: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    num_top: tuple[int, ...] = ()
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
    prompt_scores: tuple[tuple[int, TokenScores], ...] = ()
    num_cached: tuple[tuple[int, int], ...] = ()
    prefix_reports: tuple[tuple[int, PrefixReport], ...] = ()
    finish_reasons: tuple[FinishReason | None, ...] = ()
    failures: tuple[tuple[int, EngineError], ...] = ()
    waited_s: tuple[tuple[int, float], ...] = ()
    load: Load = Load()
    stats: EngineStats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The loop lives, and has nothing to tell but its `stats`, where they are due."""

    load: Load
    stats: EngineStats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The answer to the `Inspect` of the same number."""

    number: int
    view: EngineView


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCleared:
    """The prefix cache knows nothing any more; it had known the content of `num_blocks` blocks."""

    order_id: int
    num_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Nothing is under way any more, and nothing new is accepted."""


ToEngine = Configure | Vocabulary | Submit | Abort | Finish | ClearCache | Inspect | Drain
ToServer = (
    Loading | Ready | Failed | Accepted | Refused | Updates | Pulse | CacheCleared | Inspected | Drained
)


def to_plain(message: ToEngine | ToServer) -> object:
    """`message` as it travels: Updates, of which every step has one, as a plain tuple.

    A pickler and its reader know those by themselves, where a class costs several times as much.
    """
    if type(message) is not Updates:
        return message
    *columns, load, stats = message
    return (*columns, (*load,), stats)


def from_plain(arrived: Any) -> Any:  # Any: a message of either direction
    """The message that `to_plain` made this of."""
    if type(arrived) is not tuple:
        return arrived
    *columns, load, stats = arrived
    return Updates._make((*columns, Load._make(load), stats))
