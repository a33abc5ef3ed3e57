"""A vocabulary for grammars: token id b is byte b, 256 and 257 are special, and 257 ends a sequence."""

from engine.messages import Vocabulary
from engine.structured.compiler import ModelTokens

EOS_ID = 257
TOKENS = ModelTokens(vocab_size=264, eos_ids=(EOS_ID,))
VOCABULARY = Vocabulary(
    token_bytes=(*(bytes([byte]) for byte in range(256)), b"<bos>", b"<eos>"), special_ids=(256, 257)
)
