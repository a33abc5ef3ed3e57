import threading

import pytest

from engine.channel import BlockingEnd, channel_pair, to_frame
from engine.errors import EngineCrashedError
from engine.messages import Drained, Load, Pulse
from engine.outbox import Outbox


class Taker:
    """A writer that takes `most` bytes at once, and the rest when it may."""

    def __init__(self, most=1 << 30):
        self.most = most
        self.taken = b""
        self.num_offers = 0
        self.may_write = threading.Event()
        self.writes = threading.Semaphore(0)

    def offer(self, frame):
        self.num_offers += 1
        self.taken += frame[: self.most]
        return min(self.most, len(frame))

    def write(self, frame):
        assert self.may_write.wait(10)
        self.taken += frame
        self.writes.release()


class Breaker(Taker):
    """A writer that fails."""

    def __init__(self, error, most=0):
        super().__init__(most)
        self.error = error

    def offer(self, frame):
        if self.most:
            raise self.error
        return 0

    def write(self, frame):
        raise self.error


def pulses(number):
    return [Pulse(load=Load(num_steps=step)) for step in range(number)]


def frames(messages):
    return b"".join(map(to_frame, messages))


def test_what_the_channel_takes_at_once_leaves_in_the_thread_that_puts_it():
    writer = Taker()
    outbox = Outbox(writer)

    for message in pulses(3):
        outbox.put(message)

    assert writer.taken == frames(pulses(3))


@pytest.mark.parametrize("most", [0, 1, 10])
def test_what_it_does_not_take_follows_in_order_and_close_waits_for_the_last(most):
    writer = Taker(most)
    outbox = Outbox(writer)
    outbox.start()
    for message in pulses(100):
        outbox.put(message)
    taken_at_once = writer.taken
    writer.may_write.set()
    outbox.close()

    assert taken_at_once == frames(pulses(1))[:most]
    assert writer.num_offers == 1
    assert writer.taken == frames(pulses(100))


def test_once_the_backlog_is_sent_messages_leave_at_once_again():
    writer = Taker(0)
    outbox = Outbox(writer)
    outbox.start()
    writer.may_write.set()
    outbox.put(Drained())
    writer.most = 1 << 30
    while writer.num_offers < 2:
        assert writer.writes.acquire(timeout=10)  # of the one before: none is put on top of a backlog
        outbox.put(Drained())
    outbox.close()

    assert set(writer.taken.split(to_frame(Drained()))) == {b""}


@pytest.mark.parametrize("most", [0, 1], ids=["in the thread", "at once"])
def test_a_broken_channel_does_not_hold_the_loop_up(most):
    outbox = Outbox(Breaker(BrokenPipeError(), most))
    outbox.start()
    for _ in range(5000):
        outbox.put(Drained())
    outbox.close()

    assert not any(thread.name == "outbox" for thread in threading.enumerate())


@pytest.mark.parametrize("most", [0, 1], ids=["in the thread", "at once"])
def test_a_message_that_cannot_be_sent_is_told_to_whoever_puts_the_next(caplog, most):
    outbox = Outbox(Breaker(MemoryError("planted"), most))
    outbox.start()

    with pytest.raises(EngineCrashedError, match="planted"):
        _put_for_ever(outbox)  # the thread may not have noted it yet
    outbox.close()
    assert "outbox failed" in caplog.text


def _put_for_ever(outbox):
    while True:
        outbox.put(Drained())


def test_messages_arrive_whole_over_a_channel_whose_reader_is_slow():
    ours, theirs = channel_pair()
    reader, writer = BlockingEnd(ours), BlockingEnd(theirs)
    outbox = Outbox(writer)
    outbox.start()
    received = []
    putting = threading.Thread(target=lambda: [outbox.put(message) for message in pulses(3000)])
    putting.start()
    for _ in range(3000):
        received.append(reader.receive())
    putting.join(10)
    outbox.close()
    reader.close()
    writer.close()

    assert received == pulses(3000)
