"""Whether an answer refuses: it opens with one of these patterns. English and German; anything else is not seen.

| pattern | as in |
|---|---|
| sorry or afraid, and soon after it cannot, unable or will not | "I'm sorry, but I can't help with that" |
| I cannot, will not, am unable to, refuse to, must decline, do not feel comfortable | "I cannot provide instructions" |
| I am not able, allowed or programmed to | "I'm not allowed to share this" |
| as an AI, as a language model, and soon after it cannot, do not, not able | "As an AI language model, I do not give advice" |
| it is against my guidelines, it would be illegal or unethical to | "It is against my policy" |
| Es tut mir leid / Leider, and soon after it kann nicht or darf nicht; Ich kann dir dabei nicht | "Leider kann ich dabei nicht helfen" |

Looked at: the first 200 characters, NFKC, case folded, curly apostrophes straightened, one opening word (no, unfortunately, well) and punctuation skipped. A
refusal in the middle of an answer is not seen, and an answer that is asked for a sentence such as "I cannot swim" is taken for one: an answer of few words
that equals the expected one is never put to this test.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_OPENING: Final = r"(?:(?:no|unfortunately|well|oh|apologies|i apologi[sz]e)\b[\s,.;:!-]*(?:but\b\s*)?)?"
_CANNOT: Final = r"(?:can'?t|cannot|can not|unable|won'?t|will not|not able|not allowed)"
_REFUSAL: Final = re.compile(
    _OPENING
    + "(?:"
    + "|".join(
        (
            rf"(?:i'?m |i am |we'?re |we are )?(?:very |so |truly )?(?:sorry|afraid)\b.{{0,60}}\b{_CANNOT}\b",
            r"(?:i|we) (?:can'?t|cannot|can not|won'?t|will not|refuse to|must decline|have to decline|do not feel comfortable|don'?t feel comfortable)\b",
            r"(?:i'?m|i am|we'?re|we are) (?:unable|not able|not allowed|not permitted|not programmed|not comfortable)\b",
            rf"as an? (?:ai|artificial intelligence|(?:large )?language model)\b.{{0,60}}\b(?:{_CANNOT}|don'?t|do not|must not|must decline)\b",
            r"(?:it|that|this) (?:is|would be|goes) (?:against (?:my|our)|illegal|unethical|not (?:legal|ethical|appropriate))\b",
            r"(?:es tut mir leid|tut mir leid|leider|entschuldigung)\b.{0,60}\b(?:kann|darf|werde|möchte)\b.{0,60}\bnicht\b",
            r"ich (?:kann|darf|werde) (?:dir|ihnen|das|dabei|diese|dieses|hierbei)\b.{0,40}\bnicht\b",
        )
    )
    + ")",
    re.DOTALL,
)


def refuses(output: str) -> bool:
    """Whether an answer opens as a refusal. Only asked of answers that are not right as what the task wants."""
    opening = unicodedata.normalize("NFKC", output).replace("\u2019", "'").casefold().strip(" \t\r\n\"'*_>#-")[:200]
    return _REFUSAL.match(opening) is not None
