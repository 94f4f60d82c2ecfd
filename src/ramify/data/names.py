"""Names of files that can be shown, and names of files that systems leave behind."""

import unicodedata

SYSTEM = frozenset(
    {
        *("@eadir", ".thumbnails", ".thumb", ".@__thumb", "thumbs.db", "ehthumbs.db", "__macosx", ".ds_store"),
        *("desktop.ini", "$recycle.bin", "#recycle", ".appledouble", ".picasa.ini"),
    }
)
"""Folders and files that systems and file managers leave behind, in lower case."""

# Marks that change the direction of text, which could make one name look like another.
_TURNING = frozenset("\u200e\u200f\u061c\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or of the system.

    Example:
        >>> is_hidden(".git"), is_hidden("@eaDir"), is_hidden("cat")
        (True, True, False)
    """
    return part.startswith(".") or part.lower() in SYSTEM


def is_system(part: str) -> bool:
    """Whether a system or file manager makes files or folders of this name, such as thumbnails."""
    return part.lower() in SYSTEM or part.startswith("._")


def printable(text: str) -> str:
    r"""``text`` with control characters and others that cannot be shown written as ``\x1b``.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    categories = ("Cc", "Cs", "Zl", "Zp")
    return "".join(
        _escaped(letter) if unicodedata.category(letter) in categories or letter in _TURNING else letter
        for letter in text
    )


def shown(name: str) -> str:
    r"""A file's name as it is shown and kept: printable, and different for different names.

    Bytes that are not UTF-8, which Python reads as lone surrogates, become ``\xe9``; a backslash is doubled.

    Example:
        >>> shown("caf\udce9.png"), shown("cat/1.png")
        ('caf\\xe9.png', 'cat/1.png')
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return printable(name.replace("\\", "\\\\"))


def class_name(folder: str) -> str:
    """The class of ``folder`` (as :func:`shown`), normalized (NFC).

    Example:
        >>> class_name("Cafe\u0301") == class_name("Caf\u00e9")
        True
    """
    return unicodedata.normalize("NFC", folder)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
