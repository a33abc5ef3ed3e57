from server.tools.feed import Feed


def played(feed: Feed, reading, *parts: str):
    """What a reading returns once all parts have arrived, and how often it had to wait."""
    num_waits = 0
    for part in parts:
        feed.add(part)
        try:
            next(reading)
        except StopIteration as ended:
            return ended.value, num_waits
        num_waits += 1
    feed.is_over = True
    try:
        next(reading)
    except StopIteration as ended:
        return ended.value, num_waits
    raise AssertionError("it waits for more than there is")


def test_a_reading_waits_for_what_it_needs():
    feed = Feed()

    assert played(feed, feed.literal("abc"), "a", "b", "c") == (True, 2)


def test_what_only_begins_alike_is_not_read():
    feed = Feed()

    assert played(feed, feed.literal("abc"), "ab", "d") == (False, 1)
    assert played(feed, feed.rest(), "") == ("abd", 0)


def test_a_marker_is_found_across_parts():
    feed = Feed()

    assert played(feed, feed.until("<x>"), "<", "x>b") == (("", True), 1)
    assert played(feed, feed.rest(), "") == ("b", 0)


def test_text_before_what_may_be_a_marker_is_free():
    feed = Feed()

    assert played(feed, feed.until("<x>"), "ab<x") == (("ab", False), 0)
    assert played(feed, feed.until("<x>"), "y") == (("<xy", False), 0)


def test_the_end_sets_free_what_was_kept():
    feed = Feed()

    assert played(feed, feed.until("<x>"), "<x") == (("<x", False), 1)
    assert played(feed, feed.until("<x>")) == (("", False), 0)


def test_one_can_go_back_to_the_mark():
    feed = Feed()
    played(feed, feed.literal("a"), "ab")
    feed.mark()
    played(feed, feed.literal("bc"), "c")

    assert feed.since_mark() == "bc"
    feed.go_back()
    assert played(feed, feed.rest(), "") == ("bc", 0)


def test_blanks_are_skipped_up_to_the_end():
    feed = Feed()
    played(feed, feed.skip(), " \n", "\t")

    assert played(feed, feed.peek()) == ("", 0)
