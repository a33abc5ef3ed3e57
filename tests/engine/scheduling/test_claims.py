from engine.scheduling.claims import Claims


def test_claimed_blocks_are_settled_in_order():
    claims = Claims()
    claims.claim(1, [b"a", b"b", b"c"])
    claims.settle(1, 2)

    assert b"b" not in claims
    assert b"c" in claims


def test_a_block_claimed_twice_stays_claimed_until_both_are_done():
    claims = Claims()
    claims.claim(1, [b"a"])
    claims.claim(2, [b"a"])
    claims.settle(1, 1)

    assert b"a" in claims
    claims.withdraw(2)
    claims.withdraw(2)
    assert b"a" not in claims


def test_blocks_beyond_the_claim_are_passed_over():
    claims = Claims()
    claims.claim(1, [b"a"])
    claims.settle(1, 5)
    claims.settle(9, 1)

    assert b"a" not in claims
    assert None not in claims
