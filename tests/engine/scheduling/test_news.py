from engine.errors import StepError
from engine.messages import Load, Updates
from engine.request import FinishReason
from engine.scheduling.news import News


def test_news_becomes_columns():
    news = News()
    news.add(4, (17,), (), None)
    news.add(9, (5, 6), (-1.0, -2.0), FinishReason.STOP)
    news.add_failure(3, StepError("x"))

    assert news.to_updates(Load(num_running=2)) == Updates(
        sequence_ids=(4, 9),
        num_tokens=(1, 2),
        token_ids=(17, 5, 6),
        logprobs=(-1.0, -2.0),
        finish_reasons=(None, FinishReason.STOP),
        failures=((3, StepError("x")),),
        load=Load(num_running=2),
    )
