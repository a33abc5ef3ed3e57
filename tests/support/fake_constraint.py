"""A constraint without a grammar: it is complete after some tokens, and fails at one."""

from engine.errors import RequestError


class FakeConstraint:
    """Implements `Constraint` of `engine.scheduling.sequence`."""

    def __init__(self, *, length=99, failing_at=None):
        self.taken = []
        self.failure = None
        self._length = length
        self._failing_at = failing_at

    @property
    def is_complete(self):
        return len(self.taken) >= self._length

    def advance(self, token_id):
        self.taken.append(token_id)
        if len(self.taken) == self._failing_at:
            self.failure = RequestError("too complex", "grammar")
