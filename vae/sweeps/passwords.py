"""Hide passwords in a URL or another text of a user: whatever is shown or stored has *** in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, unquote_plus

HIDDEN = "***"
LEAST = 3  # letters of a password that is searched in other texts
# In the query of a URL, or in the words of libpq.
_VALUE = re.compile(r"(?P<key>(?:^|[?&;\s=])\w*(?:pass|pwd|secret|token)\w*\s*=\s*)(?P<value>'[^']*'|[^&;\s]+)", re.I)


def without_password(text: str) -> str:
    """`text` with *** for everything that may be a password, also if the text is not a valid URL.

    This is the text between the first colon and the last @, because a password may contain both, and the value of a key
    whose name says that it is a password.
    """
    before, _ = _split(text)
    return _VALUE.sub(rf"\g<key>{HIDDEN}", before)


def passwords_in(texts: Iterable[str]) -> list[str]:
    """What `without_password` hides in `texts`, also decoded and in parts, as a driver may quote it; longest first."""
    found = set()
    for text in texts:
        _, password = _split(text)
        for whole in (password, *(match["value"].strip("'") for match in _VALUE.finditer(text))):
            forms = {whole, unquote(whole), unquote_plus(whole), quote(whole, safe="")}
            found |= forms | {part for form in forms for part in re.split(r"[@/?:#]", form)}
    return sorted((one for one in found if len(one) >= LEAST and one != HIDDEN), key=len, reverse=True)


def hide(passwords: Iterable[str], text: str) -> str:
    """`text` with *** for each of the `passwords`, longest first."""
    for password in passwords:
        text = text.replace(password, HIDDEN)
    return text


def _split(text: str) -> tuple[str, str]:
    """The text with *** for the password before its last @, and that password; empty if there is none."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        scheme, rest = "", text
    head, at, tail = rest.rpartition("@")
    user, colon, password = head.partition(":")
    return (f"{scheme}{slashes}{user}:{HIDDEN}@{tail}", password) if at and colon else (text, "")
