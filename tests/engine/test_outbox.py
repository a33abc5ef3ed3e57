import threading

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
