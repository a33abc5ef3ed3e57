import threading

import pytest

from engine.errors import EngineCrashedError
from engine.messages import Drained, Load, Pulse
from engine.outbox import Outbox


def test_messages_leave_in_order_and_close_waits_for_the_last():
    sent = []
    outbox = Outbox(sent.append)
    outbox.start()
    messages = [Pulse(load=Load(num_steps=step)) for step in range(100)]
    for message in messages:
        outbox.put(message)
    outbox.close()

    assert sent == messages


def test_a_broken_channel_does_not_hold_the_loop_up():
    def send(message):
        raise BrokenPipeError

    outbox = Outbox(send)
    outbox.start()
    for _ in range(5000):
        outbox.put(Drained())
    outbox.close()

    assert not any(thread.name == "outbox" for thread in threading.enumerate())


def test_a_message_that_cannot_be_sent_is_told_to_whoever_puts_the_next(caplog):
    failed = threading.Event()

    def send(message):
        failed.set()
        raise MemoryError("planted")

    outbox = Outbox(send)
    outbox.start()
    outbox.put(Drained())
    assert failed.wait(10)

    with pytest.raises(EngineCrashedError, match="planted"):
        _put_for_ever(outbox)  # the thread may not have noted it yet
    outbox.close()
    assert "outbox failed" in caplog.text


def _put_for_ever(outbox):
    while True:
        outbox.put(Drained())
