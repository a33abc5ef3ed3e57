"""The part of a grammar that lets a model reason before what is constrained begins.

A tag is a special token in some vocabularies and plain text in others, and a rule has to say which.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.reasoning import ReasoningTags, is_closed, is_open
from server.translate.constraint import text_rule

_BLANK = r"/[ \n]{1,4}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtRules:
    """What stands before an answer: `before` names `rules`, and both are empty where nothing may.

    `opening` is the text, if it is text, with which the block begins: free text must not begin so too.
    """

    before: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)
    opening: str = ""


def thought_rules(tags: ReasoningTags | None, prompt: str, special_ids: Mapping[str, int]) -> ThoughtRules:
    """The rules for an answer to `prompt`; `special_ids` has those of the tags that are special tokens."""
    if tags is None or is_closed(tags, prompt):
        return ThoughtRules()
    closing = special_ids.get(tags.closing)
    if closing is not None:
        rules = {"thought": f"thinking? {token_rule(closing)}", "thinking": "/(?s:.+)/"}
    else:
        rules = {"thought[lazy]": f"/(?s:.*){re.escape(tags.closing).replace('/', chr(92) + '/')}/"}
    block = f"thought {_BLANK}?"
    if is_open(tags, prompt):
        return ThoughtRules(before=block, rules=rules)
    opening = special_ids.get(tags.opening)
    if opening is not None:
        return ThoughtRules(before=f"({token_rule(opening)} {block})?", rules=rules)
    return ThoughtRules(before=f"({text_rule(tags.opening)} {block})?", rules=rules, opening=tags.opening)


def token_rule(token_id: int) -> str:
    """Exactly this token, whatever its text."""
    return f"<[{token_id}]>"
