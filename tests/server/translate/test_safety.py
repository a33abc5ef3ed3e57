from server.translate.safety import SAFE_PROMPT, with_safe_prompt

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


def test_the_words_are_the_papers():
    assert SAFE_PROMPT == (
        "Always assist with care, respect, and truth. Respond with utmost utility yet securely. Avoid "
        "harmful, unethical, prejudiced, or negative content. Ensure replies promote fairness and positivity."
    )


def test_it_opens_a_conversation_without_a_system_message():
    assert with_safe_prompt([USER], "system") == [{"role": "system", "content": SAFE_PROMPT}, USER]


def test_it_stands_before_what_a_system_message_says():
    merged = with_safe_prompt([SYSTEM, USER], "system")

    assert merged == [{"role": "system", "content": f"{SAFE_PROMPT}\n\nBe brief."}, USER]


def test_it_is_put_once():
    once = with_safe_prompt([SYSTEM, USER], "system")

    assert with_safe_prompt(once, "system") == once


def test_a_user_says_it_where_there_is_no_system():
    assert with_safe_prompt([USER], "user") == [{"role": "user", "content": f"{SAFE_PROMPT}\n\nHi"}]


def test_what_was_given_is_not_changed():
    given = [dict(SYSTEM), dict(USER)]
    with_safe_prompt(given, "system")

    assert given == [SYSTEM, USER]
