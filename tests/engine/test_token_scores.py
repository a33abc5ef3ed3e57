import pickle

from engine.token_scores import NO_SCORES, TokenScores

SCORES = TokenScores(
    logprobs=(-0.1, -2.0), ranks=(1, 3), top_ids=(7, 5, 8, 2), top_logprobs=(-0.1, -2.5, -0.4, -1.5)
)


def test_scores_count_their_tokens_and_the_alternatives_of_each():
    assert (len(SCORES), SCORES.num_top) == (2, 2)
    assert (len(NO_SCORES), NO_SCORES.num_top) == (0, 0)


def test_scores_are_cut_with_their_alternatives():
    assert SCORES.first(1) == TokenScores(
        logprobs=(-0.1,), ranks=(1,), top_ids=(7, 5), top_logprobs=(-0.1, -2.5)
    )
    assert SCORES.first(2) is SCORES


def test_scores_survive_pickling_and_compare_equal():
    assert pickle.loads(pickle.dumps(SCORES)) == SCORES
