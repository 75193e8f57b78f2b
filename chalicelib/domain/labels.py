"""Names that people give: AppName, Name, ServiceName. One spelling for each. Pure."""

import unicodedata

# Embeddings, overrides and isolates: they show the rest of a line in an order that it does not have.
_REORDER = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL = frozenset(("Cc", "Zl", "Zp"))
# By their category these are letters and symbols, but they show nothing: fillers, and braille's empty
# pattern.
_EMPTY = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# A mark without a letter shows nothing of its own.
_UNSEEN = ("Z", "M", "Cc", "Cf")


def normalize(text: str) -> str:
    """The text in Unicode's form NFC: one spelling for what may be written in several."""
    return unicodedata.normalize("NFC", text)


def find_fault(text: str) -> str | None:
    """What is wrong with a name: the end of a sentence that begins with the field. None: all is right."""
    for character in text:
        if unicodedata.category(character) in _CONTROL:
            return f"must have no control characters, and has U+{ord(character):04X}"
        if character in _REORDER:
            return f"must not change the direction of writing, and has U+{ord(character):04X}"
    if not any(map(_is_visible, text)):
        return "must have something visible in it"
    return None


def _is_visible(character: str) -> bool:
    is_seen = not unicodedata.category(character).startswith(_UNSEEN)
    return is_seen and character not in _EMPTY
