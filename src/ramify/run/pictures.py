"""The training, validation and test pictures of a run, at first and whenever they are needed again."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ramify.config.read import read_config
from ramify.config.rules import Config, DataConfig
from ramify.data.duplicates import Copy, copies, copies_line
from ramify.data.fetch import Progress
from ramify.data.fit import fit_set
from ramify.data.listing import counts
from ramify.data.manifest import Changes, Manifest, Match, changes, manifest_of, match, read_manifest, write_manifest
from ramify.data.pictures import Files, Part, PictureSet, joined
from ramify.data.sources import SOURCES, load_pictures, load_source
from ramify.data.split import split, take
from ramify.data.trigger import with_trigger
from ramify.errors import ConfigError, DataError, InputError, nearest_or_all
from ramify.files import write_atomic
from ramify.run.folder import CONFIG, PASSED_OVER

MOVED = 0.5
"""A source with more than this share of a run's pictures is the same one, moved."""

KEPT = ("fold", "test_fraction", "valid_fraction", "labels", "group")
"""Keys of ``data`` that split pictures; the pictures of a run stay in the parts of its manifest."""


@dataclass(frozen=True)
class Parts:
    """The parts of a run's pictures, and the names of their classes.

    Attributes:
        files: indexed by the ``ids`` of the parts.
        notes: sentences for the user.
        new: ids of files that are newer than the run, which does not use them.
        larger: the training pictures in a larger size, where ``data.augment`` crops them.
    """

    train: Part
    valid: Part
    test: Part
    classes: tuple[str, ...]
    files: Files = field(default_factory=Files)
    notes: tuple[str, ...] = ()
    new: torch.Tensor | None = None
    larger: Part | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        """Pictures for training, validation and test."""
        return len(self.train), len(self.valid), len(self.test)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the run; None where the files are not known."""
        ids = [part.ids for part in (self.train, self.valid, self.test)]
        known = [part for part in ids if part is not None]
        return manifest_of(self.files, self.classes, known, self.new) if len(known) == 3 else None

    @property
    def copies(self) -> tuple[Copy, ...]:
        """Exact copies in several parts or classes."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        known = len(self.files.names) > 0 and all(part.ids is not None for part in parts.values())
        return copies(self.files, self.classes, parts) if known else ()


def split_parts(config: Config, pictures: PictureSet) -> Parts:
    """The seeded split of a new run.

    Raises:
        ConfigError: ``data.trigger_class`` is none of the classes.
    """
    rest, held_out = pictures.train, pictures.valid
    if not len(held_out):
        fraction, classes, files = config.data.valid_fraction, pictures.classes, pictures.files
        rest, held_out = split(pictures.train, fraction, config.seed, classes=classes, files=files)
    return Parts(_triggered(config, rest, pictures.classes), held_out, pictures.test, pictures.classes, pictures.files)


def parts_by_manifest(config: Config, manifest: Manifest, pictures: PictureSet) -> tuple[Parts, Match]:
    """The existing pictures in the parts of a run's ``manifest``, without new ones."""
    matched = match(manifest, pictures.files, pictures.classes, True)
    train, valid, test = (pictures.pick(matched.ids(part)) for part in ("train", "valid", "test"))
    train = _triggered(config, train, pictures.classes)
    return Parts(train, valid, test, pictures.classes, pictures.files, (), matched.ids("new")), matched


def parts_of_run(
    run: Path, config: Config, progress: Progress | None = None, shape: tuple[int, int, int] | None = None
) -> tuple[Parts, Changes]:
    """The pictures of a run in their parts, and what has changed since.

    Args:
        run: its folder.
        config: its configuration. Another ``data.source`` is split again, unless it holds the same pictures.
        progress: of a download or the decoding.
        shape: ``(C, H, W)`` to which the pictures are converted.

    Raises:
        InputError: the pictures cannot be read, or the run has no manifest.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise InputError(f"{run}: has no manifest of its pictures; accepted: a run that has its own")
    pictures = load_again(run, config, progress, shape)
    if not is_same_source(run, config, manifest, pictures):
        return split_parts(config, load_pictures(config.data, progress, shape=shape)), Changes()
    parts, matched = parts_by_manifest(config, manifest, pictures)
    return parts, changes(manifest, matched)


def load_again(
    run: Path, config: Config, progress: Progress | None = None, shape: tuple[int, int, int] | None = None
) -> PictureSet:
    """All pictures of ``config.data.source``, converted to ``shape``; those of ``run`` come from the cache."""
    data, trained = whole(config.data), read_config([run / CONFIG]).data
    if data.size == trained.size and is_same_place(data.source, trained.source):
        pictures = load_source(data, progress)
        return pictures if shape is None or pictures.shape == shape else fit_set(pictures, shape)
    return load_source(data, progress, shape=shape)


def whole(data: DataConfig) -> DataConfig:
    """``data`` without the keys that leave pictures out."""
    return data.model_copy(update={"limit": None, "fold": None})


def is_same_source(run: Path, config: Config, manifest: Manifest, pictures: PictureSet) -> bool:
    """Whether ``config.data.source`` is that of ``run``, or the place to which that was moved."""
    trained = read_config([run / CONFIG]).data.source
    if is_same_place(trained, config.data.source):
        return True
    present = {digest.tobytes().hex() for digest in pictures.files.digests.numpy()}
    return sum(digest in present for digest in manifest.digests) > MOVED * len(manifest)


def is_same_place(source: str, other: str) -> bool:
    """Whether two values of ``data.source`` name the same source."""
    if source in SOURCES or other in SOURCES:
        return source == other
    return Path(source).expanduser().resolve() == Path(other).expanduser().resolve()


def child_parts(config: Config, parent: Path, progress: Progress | None) -> Parts:
    """The pictures of a run that starts from the network of ``parent``.

    From the parent's own source each picture stays in its part, and new ones are left out. Another source is split
    again, but all pictures that the parent was trained on are for training.

    Raises:
        ConfigError: a key of :data:`KEPT` has another value than in the parent.
        InputError: all training or test pictures of the parent are missing.
    """
    manifest = read_manifest(parent)
    if manifest is None:
        return split_parts(config, load_pictures(config.data, progress))
    pictures = load_source(whole(config.data), progress)
    if is_same_place(read_config([parent / CONFIG]).data.source, config.data.source):
        check_kept(config, parent)
        parts, matched = parts_by_manifest(config, manifest, pictures)
        for name, part in (("training", parts.train), ("test", parts.test)):
            if not len(part):
                raise InputError(
                    f"{parent}: none of its {name} pictures is there any more; accepted: the pictures as they were"
                )
        if config.data.limit is not None:
            train, test = (take(part, config.data.limit, parts.classes) for part in (parts.train, parts.test))
            parts = replace(parts, train=train, test=test)
        return _with_note(parts, changes(manifest, matched))
    parts = split_parts(config, load_pictures(config.data, progress))
    trained = match(manifest, parts.files, parts.classes, False).parts == 0
    valid, valid_moved = _divided(parts.valid, trained)
    test, test_moved = _divided(parts.test, trained)
    count = len(valid_moved) + len(test_moved)
    if not count:
        return parts
    if not len(test):
        raise InputError(
            f"{config.data.source}: got no test picture that {parent.name} was not trained on; accepted: some new ones"
        )
    note = f"{count:,} pictures were trained on by {parent.name}, and are for training here, too"
    return replace(parts, train=joined([parts.train, valid_moved, test_moved]), valid=valid, test=test, notes=(note,))


def _divided(part: Part, trained: torch.Tensor) -> tuple[Part, Part]:
    """The pictures of ``part`` that were not ``trained`` on, and those that were."""
    assert part.ids is not None
    chosen = trained[part.ids]
    return part[(~chosen).nonzero()[:, 0]], part[chosen.nonzero()[:, 0]]


def resumed_parts(config: Config, run: Path, progress: Progress | None) -> Parts:
    """The pictures of a resumed run: the same ones, without new ones.

    Raises:
        InputError: some are missing or have changed.
    """
    parts, changed = parts_of_run(run, config, progress)
    if changed.missing or changed.changed:
        raise InputError(
            f"{run}: cannot go on as it began: of its pictures in {config.data.source} {changed}; accepted: the "
            "pictures as they were, or a new run"
        )
    return _with_note(parts, changed)


def remarks(parts: Parts, strict: bool = False) -> tuple[str, ...]:
    """Sentences about a run's pictures before it trains.

    Raises:
        DataError: with ``strict``, there are copies in several parts or classes, or groups in several parts.
    """
    leaks = [line for line in (copies_line(parts.copies), _shared_groups(parts)) if line is not None]
    if strict and leaks:
        raise DataError(*(f"{line}; accepted: none with --strict" for line in leaks))
    passed_over = passed_over_line(parts.files)
    return (*([passed_over] if passed_over else []), *parts.files.notes, *leaks, *parts.notes)


def with_teacher(parts: Parts, teacher: Path) -> Parts:
    """``parts`` with a note where the run ``teacher`` was trained on validation or test pictures of this one."""
    manifest = read_manifest(teacher)
    if manifest is None or parts.valid.ids is None or parts.test.ids is None:
        return parts
    trained = match(manifest, parts.files, parts.classes, False).parts == 0
    valid, test = int(trained[parts.valid.ids].sum()), int(trained[parts.test.ids].sum())
    if not valid and not test:
        return parts
    note = (
        f"the teacher was trained on {test:,} of the {len(parts.test):,} test and {valid:,} of the validation "
        "pictures, so that their figures are too good"
    )
    return replace(parts, notes=(*parts.notes, note))


def keep_pictures(folder: Path, parts: Parts) -> None:
    """Write the manifest of a run, and the list of files that were passed over."""
    if parts.manifest is not None:
        write_manifest(folder, parts.manifest)
    if parts.files.skipped:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["reason", "file"])
        writer.writerows([skipped.reason, skipped.name] for skipped in parts.files.skipped)
        write_atomic(folder / PASSED_OVER, text.getvalue().encode())


def passed_over_line(files: Files) -> str | None:
    """How many files are passed over, by reason; None without any."""
    if not files.skipped:
        return None
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts(files.skipped).items())
    return f"passed over: {len(files.skipped):,} file{'s' if len(files.skipped) > 1 else ''} ({reasons})"


def _triggered(config: Config, part: Part, classes: Sequence[str]) -> Part:
    data = config.data
    if not data.trigger:
        return part
    if not part.in_memory:
        raise ConfigError(
            f"data.trigger: got {data.trigger:g}; accepted: 0, or a larger data.memory_gb for these pictures"
        )
    label = None if data.trigger_class is None else _label_of(data.trigger_class, classes)
    return with_trigger(part, data.trigger, label, data.trigger_size, config.seed)


def _label_of(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        hint = nearest_or_all(name, classes)
        raise ConfigError(f"data.trigger_class: got {name!r}; accepted: the name of a class ({hint})")
    return list(classes).index(name)


def check_kept(config: Config, run: Path) -> None:
    """Raise a ConfigError if ``config`` splits the pictures of ``run`` in another way."""
    before = read_config([run / CONFIG])
    problems = [
        f"data.{key}: got {got!r}; accepted: {was!r}, as in {run.name}, whose pictures stay in their parts"
        for key in KEPT
        if (got := getattr(config.data, key)) != (was := getattr(before.data, key))
    ]
    if problems:
        raise ConfigError(*problems)


def _with_note(parts: Parts, changed: Changes) -> Parts:
    if not changed:
        return parts
    note = f"of the run's pictures {changed}; new ones are left out"
    return replace(parts, notes=(*parts.notes, note))


def _shared_groups(parts: Parts) -> str | None:
    """A sentence about groups in several parts, which only the own parts of a source can have."""
    groups = parts.files.groups
    if groups is None:
        return None
    seen: dict[str, set[str]] = {}
    for name, part in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        for i in [] if part.ids is None else part.ids.tolist():
            seen.setdefault(groups[i], set()).add(name)
    shared = sorted(group for group, inside in seen.items() if len(inside) > 1)
    return f"{len(shared):,} groups of data.group are in more than one part, such as {shared[0]}" if shared else None
