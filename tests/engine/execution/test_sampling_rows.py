import torch

from engine.execution.sampling_rows import Edits, SamplingRows
from engine.plan import Draw
from engine.request import SamplingParams

LIKE = torch.zeros(1, 8)


def draw(history=(), **sampling):
    params = {"max_tokens": 1, "seed": 0, **sampling}
    return Draw(sampling=SamplingParams(**params), choice=0, history=history)


def gather(*draws):
    return SamplingRows.gather(draws, [0] * len(draws), like=LIKE)


def test_greedy_rows_need_nothing():
    assert gather(draw(temperature=0.0), draw(temperature=0.0)) == SamplingRows()


def test_a_stage_that_no_row_asks_for_is_none():
    rows = gather(draw(), draw(temperature=0.5))

    unused = (rows.edits, rows.top_k, rows.top_p, rows.min_p, rows.typical_p, rows.xtc_threshold)
    assert unused == (None,) * 6
    assert rows.scored_rows is None


def test_a_stage_that_one_row_asks_for_is_off_in_the_others():
    rows = gather(draw(), draw(min_p=0.5, top_k=3), draw(temperature=0.0, min_p=0.5))

    assert rows.min_p.tolist() == [0.0, 0.5]
    assert rows.top_k.tolist() == [0, 3]


def test_rows_that_ask_for_log_probabilities_are_named_with_the_most_alternatives():
    rows = gather(draw(), draw(logprobs=True), draw(logprobs=True, num_top_logprobs=4))

    assert (rows.scored_rows.tolist(), rows.num_top) == ([1, 2], 4)


def test_every_edit_names_its_row_and_its_columns():
    edits = Edits.gather(
        [
            draw(logit_bias=((2, 1.5),)),
            draw(allowed_ids=(3, 4)),
            draw(history=(5, 5), frequency_penalty=0.5, repetition_penalty=2.0),
        ],
        None,
        LIKE,
    )

    def triples(entries):
        return list(
            zip(entries.rows.tolist(), entries.columns.tolist(), entries.values.tolist(), strict=True)
        )

    assert triples(edits.biases) == [(0, 2, 1.5)]
    assert triples(edits.allowed) == [(1, 3, 0.0), (1, 4, 0.0)]
    assert triples(edits.seen) == [(2, 5, 2.0)]
    assert triples(edits.repeated) == [(2, 5, 1.0)]
    assert edits.banned is None
    assert edits.prolonging is None
