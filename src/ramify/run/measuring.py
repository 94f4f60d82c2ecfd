"""The pictures on which a saved network is measured, and notes about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ramify.config.rules import Config
from ramify.data.fetch import Progress
from ramify.data.manifest import Manifest, changes, match, read_manifest
from ramify.data.pictures import Part, PictureSet, joined
from ramify.data.sources import SOURCES, load_pictures, load_source
from ramify.data.split import take
from ramify.errors import InputError
from ramify.run.folder import is_run, read_summary
from ramify.run.pictures import (
    check_kept,
    is_same_source,
    load_again,
    passed_over_line,
    whole,
)

VALIDATION = "validation pictures"
UNFINISHED = "the run has not finished: these are its validation pictures, and its test pictures are read at its end"


@dataclass(frozen=True)
class Chosen:
    """Pictures to measure.

    Attributes:
        part: labeled by the index of the class in ``classes``.
        names: of their files.
        kind: such as "test pictures".
        notes: sentences for the user.
    """

    part: Part
    classes: tuple[str, ...]
    names: tuple[str, ...]
    kind: str
    notes: tuple[str, ...]


def pictures_to_measure(
    run: Path,
    config: Config,
    overrides: Sequence[str] = (),
    shape: tuple[int, int, int] | None = None,
    only_new: bool = False,
    progress: Progress | None = None,
) -> Chosen:
    """The test pictures of a run (validation pictures until it has finished), or the pictures of another source.

    Args:
        run: its folder.
        config: its configuration, with ``overrides``.
        overrides: changes for this measurement.
        shape: ``(C, H, W)`` to which the pictures are converted.
        only_new: only pictures that the run has never seen.
        progress: of a download or the decoding.

    Raises:
        InputError: there are no such pictures, or an override would split them in another way.
    """
    manifest = read_manifest(run)
    if manifest is None:
        return _without_manifest(run, config, shape, only_new, progress)
    pictures = load_again(run, config, progress, shape)
    if is_same_source(run, config, manifest, pictures):
        chosen = _of_own_source(run, config, manifest, pictures, only_new)
    else:
        if config.data.source in SOURCES:
            pictures = load_pictures(whole(config.data), progress, shape=shape)
        chosen = _of_other_source(run, config, manifest, pictures, only_new)
    if any(text.startswith("data.limit=") for text in overrides) and config.data.limit is not None:
        kept = take(chosen.part, config.data.limit, chosen.classes)
        return replace(chosen, part=kept, names=_names(pictures, kept))
    return chosen


def _of_own_source(run: Path, config: Config, manifest: Manifest, pictures: PictureSet, only_new: bool) -> Chosen:
    check_kept(config, run)
    matched = match(manifest, pictures.files, pictures.classes, True)
    name: Literal["new", "test", "valid"] = "new" if only_new else "test" if _finished(run) else "valid"
    part = pictures.pick(matched.ids(name))
    changed = changes(manifest, matched)
    notes = [f"of the run's pictures {changed}"] if changed else []
    if not len(part):
        if only_new:
            raise _no_new(config, run)
        if name == "valid":
            raise InputError(f"{run.name}: has not finished, and has no validation pictures; accepted: a finished run")
        raise InputError(
            f"{config.data.source}: got none of the {manifest.parts.count(2):,} test pictures of {run.name}; accepted: "
            "the pictures as they were, or --only_new for those that have come"
        )
    if name == "valid":
        notes.append(UNFINISHED)
    kind = {"new": "new pictures", "test": "test pictures", "valid": VALIDATION}[name]
    return Chosen(part, pictures.classes, _names(pictures, part), kind, tuple(notes))


def _no_new(config: Config, run: Path) -> InputError:
    return InputError(f"{config.data.source}: got no picture that {run.name} does not know; accepted: new pictures")


def _of_other_source(run: Path, config: Config, manifest: Manifest, pictures: PictureSet, only_new: bool) -> Chosen:
    parts = (pictures.train, pictures.valid, pictures.test)
    part = pictures.test if len(pictures.test) else joined(parts)
    assert part.ids is not None
    known, notes = match(manifest, pictures.files, pictures.classes, False).parts[part.ids], []
    trained, valid = int((known == 0).sum()), int((known == 1).sum())
    if only_new:
        part = part[(known < 0).nonzero()[:, 0]]
        if not len(part):
            raise _no_new(config, run)
    elif trained or valid:
        notes.append(
            f"{trained:,} of these pictures were trained on and {valid:,} validated with, so that the figures are too "
            "good; leave them out with --only_new"
        )
    if len(pictures.test):
        notes.append(f"the test part of the source; its {len(pictures.train):,} training pictures are not measured")
    passed_over = passed_over_line(pictures.files)
    notes += [*([passed_over] if passed_over else []), *pictures.files.notes]
    kind = "new pictures" if only_new else "test pictures" if len(pictures.test) else "pictures"
    return Chosen(part, pictures.classes, _names(pictures, part), kind, tuple(notes))


def _without_manifest(
    run: Path, config: Config, shape: tuple[int, int, int] | None, only_new: bool, progress: Progress | None
) -> Chosen:
    """Pictures for a network without a run."""
    if only_new or is_run(run):
        raise InputError(f"{run}: has no manifest of the pictures it was trained on; accepted: a run that has one")
    if config.data.source in SOURCES:
        pictures = load_pictures(config.data, progress, shape=shape)
    else:
        pictures = load_source(whole(config.data), progress, shape=shape)
    part = pictures.test if len(pictures.test) else joined((pictures.train, pictures.valid))
    note = f"{run.name} does not say which pictures it was trained on"
    kind = "test pictures" if len(pictures.test) else "pictures"
    return Chosen(part, pictures.classes, _names(pictures, part), kind, (note, *pictures.files.notes))


def _finished(run: Path) -> bool:
    """Whether the test pictures may be read, which a run does once, at its end."""
    return not is_run(run) or read_summary(run) is not None


def _names(pictures: PictureSet, part: Part) -> tuple[str, ...]:
    return () if part.ids is None else tuple(pictures.files.names[i] for i in part.ids.tolist())
