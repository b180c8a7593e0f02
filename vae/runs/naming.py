"""Names made of values: different values have different names, in a sentence and as a folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

PLAIN = re.compile(r"[\w./+:@%~-]+")  # text that needs no quotes in a label
# In a folder name. No capitals: some file systems take Ab and aB for one name. No comma: --runs=A,B parts names at it.
# No bracket: tensorstore takes one for a pattern, and cannot read what it wrote.
KEPT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.=-")
BETWEEN, ESCAPE, CUT = "+", "%", "~"
LONGEST, DIGEST = 120, 32  # characters; file systems allow 255 bytes


def text(value: Any) -> str:
    """`value` as it is shown. Of one setting, different values have different texts.

    A float is as short as it can be without being another number: `f"{x:g}"` if that is exact, else its repr. Lists
    hold positive numbers, so that "-" parts them.
    """
    if isinstance(value, list | tuple):
        return "-".join(map(text, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    written = str(value)
    return written if PLAIN.fullmatch(written) else json.dumps(written)


def folder_name(objective: str, values: Mapping[str, Any]) -> str:
    """The folder of a run that `objective` and `values` tell from the others, as in renyi+alpha=-2+seed=0.

    Injective: every character outside KEPT is written as % and two hexadecimal digits for each byte, so that the values
    could be read back; of a long name the end is replaced by the sha256 of the whole.
    """
    words = [objective, *(f"{name}={text(value).replace('e+', 'e')}" for name, value in values.items())]
    name = BETWEEN.join("".join(_escaped(character) for character in word) for word in words)
    if name[0] in ".-":
        name = f"{ESCAPE}{ord(name[0]):02x}{name[1:]}"
    if len(name) <= LONGEST:
        return name
    return name[: LONGEST - DIGEST] + CUT + hashlib.sha256(name.encode()).hexdigest()[:DIGEST]


def _escaped(character: str) -> str:
    if character in KEPT:
        return character
    return "".join(f"{ESCAPE}{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
