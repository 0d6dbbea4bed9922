#!/usr/bin/env python3
"""Writes src/search/fold.txt: what lower-case letters are without case and accents.

A line is the letters that become one text, and that text. From Unicode's case folding and
canonical decompositions, as this Python knows them, of the alphabets and of Latin ligatures.
Marks that are not accents (the vowel signs of Indic scripts, say) stay.
"""

import collections
import pathlib
import unicodedata

TABLE = pathlib.Path(__file__).parents[2] / "src/search/fold.txt"
LETTERS = [*range(0x80, 0x3000), *range(0xFB00, 0xFB07)]
ACCENTS = [(0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F)]


def is_accent(character):
    return any(first <= ord(character) <= last for first, last in ACCENTS)


def plain(character):
    parts = unicodedata.normalize("NFD", character.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in parts if not is_accent(c)))


groups = collections.defaultdict(str)
for character in map(chr, LETTERS):
    is_letter = character.isalpha() and character == character.lower()
    if is_letter and plain(character) != character:
        groups[plain(character)] += character
lines = [f"{letters} {text}" for text, letters in sorted(groups.items())]
TABLE.write_text("\n".join(lines) + "\n")
