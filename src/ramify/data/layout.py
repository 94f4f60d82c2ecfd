"""Which files of a tree are the pictures of which class: a pure function on names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramify.data.archive import is_hidden
from ramify.data.decode import is_picture
from ramify.errors import DataError

TRAIN = "train"
# Folders that are taken for the test part: the first of these that is there.
TESTS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Layout:
    """The pictures of a tree.

    Attributes:
        classes: names of the classes, sorted.
        train: (name, class) of each training picture, sorted by class and name.
        test: likewise; empty where the tree has no test part.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]


def arrange(files: Iterable[str], folders: Iterable[str], where: str) -> Layout:
    """Find the parts and classes of a tree.

    The tree holds ``train/<class>/*`` and ``test/<class>/*``, or just ``<class>/*``, inside any number of
    enclosing folders. Where there is no ``test``, the part is ``val``, ``valid`` or ``validation``; a
    second one of these is passed over. Pictures may lie deeper inside their class. Files that are not
    pictures, hidden ones, and pictures outside any class are passed over.

    Args:
        files: names of files relative to the tree's root, with ``/``.
        folders: names of folders likewise, empty ones too; parents of files need not be named.
        where: the tree, for an error.

    Raises:
        DataError: no pictures, one class, a class without pictures, a class that only the test part has.

    Example:
        >>> arrange(["set/cat/2.png", "set/cat/1.png", "set/dog/1.png"], [], "here").train
        (('set/cat/1.png', 0), ('set/cat/2.png', 0), ('set/dog/1.png', 1))
    """
    pictures = [parts for parts in map(_parts, files) if is_picture(parts[-1]) and not any(map(is_hidden, parts))]
    known = {parts[:i] for parts in pictures for i in range(1, len(parts))}
    known |= {parts for parts in map(_parts, folders) if not any(map(is_hidden, parts))}
    if not pictures:
        raise DataError(f"{where}: got no pictures; accepted: train/<class>/* and test/<class>/*, or <class>/*")
    root = _root(pictures, known)
    below = _children(known, root)
    if TRAIN in below:
        train = _by_class(pictures, known, (*root, TRAIN))
        part = next((name for name in TESTS if name in below), None)
        test = _by_class(pictures, known, (*root, part)) if part else {}
        if part and not test:
            raise DataError(f"{where}: {part} got no folders of classes; accepted: {part}/<class>/*")
    elif below and below <= set(TESTS):
        raise DataError(f"{where}: got {', '.join(sorted(below))} without train; accepted: train/<class>/* too")
    else:
        train, test = _by_class(pictures, known, root), {}
    _check(train, test, where)
    classes = tuple(sorted(train))
    return Layout(classes, _labelled(train, classes), _labelled(test, classes))


def _root(pictures: Sequence[tuple[str, ...]], known: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The folder that holds the parts or classes: down through folders that hold one folder of folders alone."""
    root: tuple[str, ...] = ()
    while True:
        below = _children(known, root)
        if len(below) != 1 or below == {TRAIN}:
            return root
        inner = (*root, *below)
        inside = _children(known, inner)
        is_class = not inside or any(parts[:-1] == inner for parts in pictures)
        if is_class and TRAIN not in inside:
            return root
        root = inner


def _children(known: set[tuple[str, ...]], folder: tuple[str, ...]) -> set[str]:
    depth = len(folder)
    return {parts[depth] for parts in known if len(parts) == depth + 1 and parts[:depth] == folder}


def _by_class(
    pictures: Sequence[tuple[str, ...]], known: set[tuple[str, ...]], part: tuple[str, ...]
) -> dict[str, list[str]]:
    depth = len(part)
    found: dict[str, list[str]] = {name: [] for name in _children(known, part)}
    for parts in pictures:
        if len(parts) > depth + 1 and parts[:depth] == part:
            found[parts[depth]].append("/".join(parts))
    return found


def _check(train: dict[str, list[str]], test: dict[str, list[str]], where: str) -> None:
    problems = [
        f"{where}: class {name} has no {kind} pictures; accepted: at least one, or no such folder"
        for kind, classes in (("training", train), ("test", test))
        for name in sorted(classes)
        if not classes[name]
    ]
    problems += [
        f"{where}: class {name} is in the test part and not in {TRAIN}; accepted: classes that {TRAIN} has"
        for name in sorted(test.keys() - train.keys())
    ]
    if len(train) < 2:
        got = f"the one class {next(iter(train))}" if train else "no folders of classes"
        problems.append(f"{where}: got {got}; accepted: at least 2 classes, a folder each")
    if problems:
        raise DataError(*problems)


def _labelled(part: dict[str, list[str]], classes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((name, label) for label, klass in enumerate(classes) for name in sorted(part.get(klass, [])))


def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("/"))
