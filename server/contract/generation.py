"""The fields that chat and plain completions share, and those of plain completions alone."""

from server.contract.constraint import CONSTRAINTS, PEERS
from server.contract.fields import hint, works

SAMPLING = (
    works(
        "temperature",
        0.7,
        "0, or less than 0.00001, always takes the most probable token; at most 2, 1 if left out.",
    ),
    works("top_p", 0.9, "Draw from the most probable tokens that make up this share; 1 if left out."),
    works("top_k", 20, "Draw from this many most probable tokens; 0 or -1 means all.", source=PEERS),
    works("min_p", 0.05, "Drop tokens below this share of the most probable one's.", source=PEERS),
    works("typical_p", 0.9, "Keep the most typical tokens up to this share; 1 is off.", source=PEERS),
    works("presence_penalty", 0.5, "Taken from the logit of every token generated before; -2 to 2."),
    works("frequency_penalty", 0.5, "The same, for each time that it was generated; -2 to 2."),
    works(
        "repetition_penalty", 1.1, "Divides the scores of tokens in prompt or output; 1 is off.", source=PEERS
    ),
    works("dry_multiplier", 0.8, "Strength of the DRY penalty on repeated runs; 0 is off.", source=PEERS),
    works("dry_base", 1.75, "Growth of the DRY penalty with the length of the run.", source=PEERS),
    works("dry_allowed_length", 2, "Longest run that DRY lets pass.", source=PEERS),
    works("dry_sequence_breakers", ["\n"], "Strings over which DRY does not look back.", source=PEERS),
    works(
        "dry_penalty_last_n",
        64,
        "Tokens DRY looks back over; 0 is off, -1 or left out means all.",
        source=PEERS,
    ),
    works("xtc_probability", 0.5, "How often XTC drops the most probable tokens; 0 is off.", source=PEERS),
    works("xtc_threshold", 0.1, "Least probability of the tokens that XTC may drop.", source=PEERS),
    works("logit_bias", {"5": -10}, "Added to the logits of token ids, given as string keys; -100 to 100."),
    works(
        "allowed_token_ids",
        [5, 6],
        "Only these tokens may be drawn; all the same where bad_words or min_tokens leave none of them.",
        source=PEERS,
    ),
    works(
        "bad_words", ["xyz"], "Words that are never completed, as the tokens they encode to.", source=PEERS
    ),
    works("seed", 7, "The same seed and parameters give the same answer to each prompt; random if left out."),
)

ENDING = (
    works(
        "max_tokens",
        5,
        "Most tokens of one choice; if left out, 16 in plain completions, and in chats what the context has left.",
    ),
    works("min_tokens", 1, "No choice ends by itself before it has this many tokens.", source=PEERS),
    works("stop", ["\n\n"], "One string, or up to four, before which a choice ends."),
    works("stop_token_ids", [5], "Tokens that end a choice, as the end of sequence does.", source=PEERS),
    works("ignore_eos", True, "Go on past the model's end-of-sequence tokens.", source=PEERS),
    works("include_stop_str_in_output", True, "Show the stop string that ended a choice.", source=PEERS),
)

OUTPUT = (
    works(
        "skip_special_tokens", False, "Leave special tokens out of the text; true if left out.", source=PEERS
    ),
    works(
        "spaces_between_special_tokens",
        False,
        "Put a space between neighbouring special tokens that are shown; true if left out.",
        source=PEERS,
    ),
    works(
        "prompt_logprobs", 1, "Score the prompt, with this many alternatives for each token.", source=PEERS
    ),
    works("return_token_ids", True, "Add token_ids and prompt_token_ids to the answer.", source=PEERS),
    works("stream", True, "Answer with server-sent events."),
    works("stream_options", {"include_usage": True}, "Only with stream.", stream=True),
    works(
        "stream_options.include_usage",
        {"include_usage": True},
        "End with a chunk that tells the usage.",
        stream=True,
    ),
    hint("stream_options.include_obfuscation", {"include_obfuscation": False}, stream=True),
    works(
        "stream_options.continuous_usage_stats",
        {"include_usage": True, "continuous_usage_stats": True},
        "Tell the usage so far in every chunk.",
        source=PEERS,
        stream=True,
    ),
)

REQUEST = (
    works("model", None, "Id of the served model, or one of its aliases, as /v1/models lists them."),
    works("n", 2, "Choices for each prompt; 1 if left out."),
    works("truncate_prompt_tokens", 4, "Keep only this many last tokens of the prompt.", source=PEERS),
    works(
        "cache_salt",
        "tenant-1",
        "Cached prefixes are shared only among requests with the same salt.",
        source=PEERS,
    ),
    works(
        "cache_debug",
        True,
        "Add cache_debug to the answer: how much of the prompt was cached, and why no more.",
        source="ringserve",
    ),
    works(
        "priority",
        1,
        "Of one API key's requests those with a lower number go first, until the others have waited long; -100 to 100.",
        source=PEERS,
    ),
    works(
        "timeout",
        30,
        "Seconds until the request, queued or running, ends with a 504; --request-timeout-s bounds it.",
        source=PEERS,
    ),
    hint("user", "u-1"),
)

HINTS = (
    hint("metadata", {"a": "b"}),
    hint("safety_identifier", "s-1"),
    hint("prompt_cache_key", "k"),
    hint("prompt_cache_retention", "24h"),
    hint("service_tier", "auto"),
    hint("store", True, "Accepted, without effect: nothing is stored."),
)
"""What OpenAI documents for chats; here plain completions take it as well, since clients send it to both."""

GENERATION = (*REQUEST, *SAMPLING, *CONSTRAINTS, *ENDING, *OUTPUT, *HINTS)

COMPLETIONS = (
    works(
        "prompt",
        "Hi",
        "One prompt or several, each as text or as token ids; an empty text is the start of a document.",
    ),
    *GENERATION,
    works("logprobs", 2, "Log-probabilities of the tokens, and of this many alternatives to each."),
    works("echo", True, "Begin the text, and the log-probabilities where asked for, with the prompt."),
    works("best_of", 2, "Generate this many choices and answer the n of highest mean log-probability."),
    works("suffix", "b", "Text after the gap; for models with fill-in-the-middle tokens, else refused."),
    works(
        "add_special_tokens",
        False,
        "Put the model's own tokens around a text; true if left out.",
        source=PEERS,
    ),
)
