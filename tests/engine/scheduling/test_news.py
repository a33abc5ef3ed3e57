from dataclasses import replace

from engine.errors import StepError
from engine.messages import Load, Updates
from engine.prefix_report import PrefixReport
from engine.request import FinishReason
from engine.scheduling.news import News
from engine.scheduling.sequence import make_sequences
from engine.token_scores import TokenScores
from tests.support.new_request import new_request
from tests.support.some_scores import some_scores
from tests.support.specs import small_layout

REPORT = PrefixReport(num_matched_tokens=16, block_size=16)


def asking(sequence_id, *, num_cached):
    """A sequence whose request asks for a report."""
    request = replace(new_request("x" * 20), wants_prefix_report=True)
    (sequence,) = make_sequences(request, sequence_id, [small_layout(None).new_tables()])
    sequence.num_cached, sequence.prefix_report = num_cached, REPORT
    return sequence


def test_news_becomes_columns():
    news = News()
    news.add(4, (17,), None, prompt_scores=some_scores(-3.0))
    scores = TokenScores(logprobs=(-1.0, -2.0), ranks=(1, 3), top_ids=(5, 8), top_logprobs=(-1.0, -0.5))
    news.add(9, (5, 6), FinishReason.STOP, logprobs=scores)
    news.add_failure(3, StepError("x"))

    news.add_prefix(asking(9, num_cached=16))

    assert news.to_updates(Load(num_running=2)) == Updates(
        sequence_ids=(4, 9),
        num_tokens=(1, 2),
        token_ids=(17, 5, 6),
        logprobs=(-1.0, -2.0),
        ranks=(1, 3),
        num_top=(0, 1),
        top_ids=(5, 8),
        top_logprobs=(-1.0, -0.5),
        prompt_scores=((4, some_scores(-3.0)),),
        num_cached=((9, 16),),
        prefix_reports=((9, REPORT),),
        finish_reasons=(None, FinishReason.STOP),
        failures=((3, StepError("x")),),
        load=Load(num_running=2),
    )
