"""Which files of a tree are the pictures of which class and part: a pure function on names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ramify.data.listing import DEEPER, OTHER_PART, OUTSIDE, Skipped
from ramify.data.names import class_name
from ramify.errors import DataError

_PARTS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "valid": frozenset({"val", "valid", "validation", "validate", "dev", "development"}),
    "test": frozenset({"test", "testing", "eval", "evaluation"}),
}
"""The names of the folders of each part, without endings such as in ``training_set`` and ``Test Data``."""

_PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "jpg", "jpeg", "png"})
"""Names of the folder of pictures inside a class, where there are several folders."""

_BEHIND = re.compile(r"[ _.-]*(set|data|dataset|images?|split|folder)?$")

_Name = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The pictures of a tree.

    Attributes:
        classes: names of the classes, sorted.
        train, test, valid: (name, class) of each picture, sorted by class and name.
        skipped: files that are not used, and why.
        notes: sentences for the user.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    valid: tuple[tuple[str, int], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def part_of(folder: str) -> str | None:
    """The part that a folder of this name holds: train, valid or test; None of another name.

    Example:
        >>> part_of("Training"), part_of("test_set"), part_of("dev"), part_of("trainers")
        ('train', 'test', 'valid', None)
    """
    stem = _BEHIND.sub("", folder.lower())
    return next((part for part, names in _PARTS.items() if stem in names), None)


def arrange(files: Iterable[str], folders: Iterable[str], where: str) -> Layout:
    """Find the parts and classes of a tree.

    The tree holds ``train/<class>/*``, and perhaps ``test/<class>/*`` and ``valid/<class>/*``, or just ``<class>/*``,
    inside any number of enclosing folders; the names of the parts are those of :data:`_PARTS`. The pictures of a class
    lie in its folder, or else in the folders below it.

    Args:
        files: names of pictures relative to the tree's root, with ``/``.
        folders: names of folders, empty ones too; parents of files need not be named.
        where: the tree, for an error.

    Raises:
        DataError: no pictures, one class, a class without pictures, a class that the training part lacks, two folders
            for one part, or classes that are more likely parts.

    Example:
        >>> arrange(["set/cat/2.png", "set/cat/1.png", "set/dog/1.png"], [], "here").train
        (('set/cat/1.png', 0), ('set/cat/2.png', 0), ('set/dog/1.png', 1))
    """
    tree = _Tree(files, folders)
    if not tree.pictures:
        raise DataError(f"{where}: got no pictures; accepted: train/<class>/* and test/<class>/*, or <class>/*")
    root = _root(tree)
    folder_of = _parts(tree, root, where)
    by_class = {part: _by_class(tree, (*root, folder) if folder else root, where) for part, folder in folder_of.items()}
    others = {part: pictures for part, pictures in by_class.items() if part != "train"}
    _check(by_class["train"], others, folder_of, where)
    classes = tuple(sorted(by_class["train"]))
    notes = [
        f"{where}: class {name} has no pictures in {folder_of[part]}"
        for part, pictures in others.items()
        for name in classes
        if not pictures.get(name)
    ]
    used = {name for pictures in by_class.values() for names in pictures.values() for name in names}
    skipped = tuple(
        Skipped("/".join(name), _why_unused(name, root, [folder for folder in folder_of.values() if folder]))
        for name in tree.pictures
        if "/".join(name) not in used
    )

    def labeled(part: str) -> tuple[tuple[str, int], ...]:
        pictures = by_class.get(part, {})
        return tuple((name, label) for label, key in enumerate(classes) for name in sorted(pictures.get(key, [])))

    return Layout(classes, labeled("train"), labeled("test"), labeled("valid"), skipped, tuple(notes))


class _Tree:
    """Pictures, and for each folder the folders and the pictures directly inside."""

    def __init__(self, files: Iterable[str], folders: Iterable[str]) -> None:
        self.pictures: list[_Name] = [tuple(name.split("/")) for name in files]
        self.below: dict[_Name, set[str]] = {}
        self.in_folder: dict[_Name, list[_Name]] = {}
        for name in self.pictures:
            self.in_folder.setdefault(name[:-1], []).append(name)
        for folder in {*self.in_folder, *(tuple(name.split("/")) for name in folders)}:
            for depth in range(len(folder), 0, -1):
                others = self.below.setdefault(folder[: depth - 1], set())
                if folder[depth - 1] in others:
                    break
                others.add(folder[depth - 1])

    def folders(self, at: _Name) -> set[str]:
        return self.below.get(at, set())


def _root(tree: _Tree) -> _Name:
    """The folder that holds the parts or classes: down through folders that hold one folder of folders alone."""
    root: _Name = ()
    while True:
        below = tree.folders(root)
        if len(below) != 1 or any(_is_part(tree, root, name, "train") for name in below):
            return root
        inner = (*root, *below)
        trained = any(part_of(name) == "train" for name in tree.folders(inner))
        if not trained and (not tree.folders(inner) or inner in tree.in_folder):
            return root  # it is a class
        root = inner


def _is_part(tree: _Tree, root: _Name, name: str, part: str | None = None) -> bool:
    """Whether the folder ``name`` in ``root`` is a part, and not a class of that name."""
    kind = part_of(name)
    return kind is not None and part in (None, kind) and bool(tree.folders((*root, name)))


def _parts(tree: _Tree, root: _Name, where: str) -> dict[str, str]:
    """The folder of each part; for a tree without parts that of train is ``root`` itself, as ``""``."""
    below = sorted(tree.folders(root))
    named = [name for name in below if part_of(name)]
    if not any(_is_part(tree, root, name, "train") for name in named):
        if len(named) > 1 and named == below and not any(_is_part(tree, root, name) for name in named):
            raise DataError(f"{where}: got no folders of classes in {', '.join(named)}; accepted: train/<class>/*")
        if any(_is_part(tree, root, name) for name in named) and len(named) == len(below):
            raise DataError(f"{where}: got {', '.join(named)} without train; accepted: train/<class>/* too")
        beside = {class_name(name) for name in below}
        mixed = [name for name in named if beside & {class_name(inner) for inner in tree.folders((*root, name))}]
        if mixed:
            raise DataError(
                f"{where}: got the folder {mixed[0]} beside classes that are also in it; accepted: train/<class>/* too"
            )
        return {"train": ""}
    folder_of: dict[str, str] = {}
    for name in named:
        part = str(part_of(name))
        other = folder_of.setdefault(part, name)
        if other != name:
            raise DataError(
                f"{where}: got the folders {other} and {name}, both by their names the {part} part; accepted: one"
            )
    return {part: folder_of[part] for part in _PARTS if part in folder_of}


def _by_class(tree: _Tree, part: _Name, where: str) -> dict[str, list[str]]:
    """The pictures of each class in the folder ``part``."""
    folders = sorted(tree.folders(part))
    _check_not_parts(tree, part, folders, where)
    by_class: dict[str, list[str]] = {}
    for folder in folders:
        pictures = by_class.setdefault(class_name(folder), [])
        pictures += ["/".join(name) for name in _pictures_in(tree, (*part, folder))]
    return by_class


def _pictures_in(tree: _Tree, folder: _Name) -> list[_Name]:
    """The pictures in ``folder``; if it has none, those below it, or in the one folder for pictures there."""
    if folder in tree.in_folder:
        return tree.in_folder[folder]
    below = sorted(tree.folders(folder))
    for_pictures = [name for name in below if name.lower() in _PICTURES]
    if for_pictures and len(below) > 1:
        below = for_pictures[:1]
    return [picture for name in below for picture in _pictures_in(tree, (*folder, name))]


def _check_not_parts(tree: _Tree, part: _Name, folders: list[str], where: str) -> None:
    """Refuse folders that hold the same folders: they are more likely parts than classes."""
    seen: dict[frozenset[str], str] = {}
    for folder in folders:
        inner = frozenset(tree.folders((*part, folder)))
        if len(inner) < 2 or (*part, folder) in tree.in_folder or any(name.lower() in _PICTURES for name in inner):
            continue
        other = seen.setdefault(inner, folder)
        if other != folder:
            names = ", ".join(sorted(inner)[:4]) + (", ..." if len(inner) > 4 else "")
            raise DataError(
                f"{where}: got {other} and {folder}, which would be classes but hold the same folders ({names}); "
                "accepted: train/<class>/* and test/<class>/*, or <class>/* with the pictures in it"
            )


def _check(
    train: dict[str, list[str]], others: dict[str, dict[str, list[str]]], names: Mapping[str, str], where: str
) -> None:
    problems = [
        f"{where}: class {name} has no training pictures; accepted: at least one, or no such folder"
        for name in sorted(train)
        if not train[name]
    ]
    for part, classes in others.items():
        if not any(classes.values()):
            problems.append(f"{where}: {names[part]} got no folders of classes; accepted: {names[part]}/<class>/*")
        problems += [
            f"{where}: class {name} is in the {part} part and not in train; accepted: classes that train has"
            for name in sorted(classes.keys() - train.keys())
        ]
    if len(train) < 2:
        got = f"the one class {next(iter(train))}" if train else "no folders of classes"
        problems.append(f"{where}: got {got}; accepted: at least 2 classes, a folder each")
    if problems:
        raise DataError(*problems)


def _why_unused(name: _Name, root: _Name, parts: list[str]) -> str:
    depth = len(root)
    if name[:depth] != root or len(name) == depth + 1:
        return OUTSIDE
    if parts:
        if name[depth] not in parts:
            return OTHER_PART
        return OUTSIDE if len(name) == depth + 2 else DEEPER
    return DEEPER
