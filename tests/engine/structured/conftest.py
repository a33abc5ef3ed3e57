import pytest

from engine.structured.compiler import Grammar
from engine.structured.library import Library
from tests.support.byte_vocabulary import TOKENS, VOCABULARY


@pytest.fixture(scope="session")
def library():
    return Library.open(VOCABULARY, vocab_size=TOKENS.vocab_size, eos_ids=TOKENS.eos_ids, num_threads=1)


@pytest.fixture
def automaton(library):
    """A new automaton of a grammar."""
    return lambda grammar: Grammar(library, library.compile(grammar)).new_automaton()
