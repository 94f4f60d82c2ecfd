"""Names of files as they may be shown, and the names that are none of the user's pictures."""

import unicodedata

SYSTEM = frozenset(
    {
        *("@eadir", ".thumbnails", ".thumb", ".@__thumb", "thumbs.db", "ehthumbs.db", "__macosx", ".ds_store"),
        *("desktop.ini", "$recycle.bin", "#recycle", ".appledouble", ".picasa.ini"),
    }
)
"""Folders and files that systems and file managers leave behind, in lower case."""

# Marks that turn the direction of text around: they could make one name look like another.
_TURNING = frozenset("\u200e\u200f\u061c\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is none of the user's.

    Example:
        >>> is_hidden(".git"), is_hidden("@eaDir"), is_hidden("cat")
        (True, True, False)
    """
    return part.startswith(".") or part.lower() in SYSTEM


def is_system(part: str) -> bool:
    """Whether a system or a file manager has made the file or folder of this name: thumbnails and the like."""
    return part.lower() in SYSTEM or part.startswith("._")


def printable(text: str) -> str:
    r"""``text`` without characters that a terminal obeys or cannot show; those are written as ``\x1b``.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if _commands(letter) else letter for letter in text)


def shown(name: str) -> str:
    r"""The one way in which a file's name is shown and kept: printable, and different for different names.

    Bytes that are not UTF-8, which Python reads as lone surrogates, become ``\xe9``; a backslash is doubled.

    Example:
        >>> shown("caf\udce9.png"), shown("cat/1.png")
        ('caf\\xe9.png', 'cat/1.png')
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return printable(name.replace("\\", "\\\\"))


def class_name(folder: str) -> str:
    """The name of the class that ``folder`` (as :func:`shown`) stands for: its Unicode forms are one class (NFC).

    Example:
        >>> class_name("Cafe\u0301") == class_name("Caf\u00e9")
        True
    """
    return unicodedata.normalize("NFC", folder)


def system_name(raw: bytes) -> str:
    """Bytes of a name as Python keeps those of a file system: UTF-8, and what is not as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def _commands(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNING


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
