"""Folders and archives made of all oddities: every picture file is in one part, or is passed over for a reason."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ramify.config.rules import DataConfig
from ramify.data.names import shown
from ramify.data.sources import load_pictures
from ramify.errors import DataError
from tests.data.making import picture

GOOD = [picture(shade, kind=kind) for shade, kind in ((0, "PNG"), (90, "JPEG"), (200, "BMP"), (30, "GIF"))]
GOOD.append(picture(70, mode="RGBA"))
BAD = [b"", b"hello", GOOD[1][:40], GOOD[0][:30], picture(size=(3, 9)), b"\0\0\0\x18ftypheic" + bytes(40)]

FOLDERS = st.sampled_from(
    [
        *(
            "cat",
            "dog",
            "Cat",
            "caf\u00e9",
            "cafe\u0301",
            "train",
            "Training",
            "test",
            "TEST_SET",
            "val",
            "dev",
            "extra",
        ),
        *("images", "masks", "@eaDir", ".hidden", "__MACOSX", ".thumbnails", "a\x1bb", "b\\c", "\u202etac", "1"),
    ]
)
NAMES = st.sampled_from(
    [
        *("1.png", "2.PNG", "3.jpg", "4.jfif", "5.jpe", "6", "7.dat", "notes.txt", "Thumbs.db", ".DS_Store", "._1.png"),
        *("8.heic", "caf\u00e9.png", "cafe\u0301.png", "x\x07.png", "y\\z.png", "9.webp", "10.tif"),
    ]
)
CONTENTS = st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD), st.sampled_from(BAD))
FILES = st.lists(st.tuples(st.lists(FOLDERS, max_size=4).map("/".join), NAMES, CONTENTS), min_size=1, max_size=25)


def usual(root: str) -> dict[str, bytes]:
    """Two classes that make most draws a set."""
    return {f"{root}{name}/{i}.png": picture(10 * i, mode="RGB") for name in ("cat", "dog") for i in range(20, 24)}


def write(base: Path, files: dict[str, bytes], form: str) -> Path:
    if form == "folder":
        root = base / "set"
        for name, content in files.items():
            path = root / name
            if path.is_dir() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root
    path = base / f"set.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def present(path: Path, form: str) -> set[str]:
    """The names of all files that are there, as ramify shows them."""
    if form == "folder":
        return {shown(str(file.relative_to(path))) for file in path.rglob("*") if file.is_file()}
    if form == "zip":
        with zipfile.ZipFile(path) as archive:
            return {shown(name.replace("\\", "/")) for name in archive.namelist()}
    with tarfile.open(path) as tar:
        return {shown(name) for name in tar.getnames()}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    files=FILES,
    form=st.sampled_from(["folder", "tar", "zip"]),
    root=st.sampled_from(["", "set/", "train/", "deep/er/"]),
    broken=st.sampled_from(["skip", "stop"]),
    memory=st.sampled_from([1.0, 0.0]),
)
def test_every_picture_is_in_one_part_or_passed_over(
    files: list[tuple[str, str, bytes]], form: str, root: str, broken: str, memory: float
) -> None:
    given_files = usual(root) | {(f"{folder}/{name}" if folder else name): content for folder, name, content in files}
    with tempfile.TemporaryDirectory() as base:
        path = write(Path(base), given_files, form)
        there = present(path, form)
        config = DataConfig.model_validate(
            {"source": str(path), "broken": broken, "memory_gb": memory, "size": 8, "test_fraction": 0.3}
        )
        try:
            pictures = load_pictures(config)
        except DataError as error:
            refused = error.problems
        else:
            refused = ()
        event("refused" if refused else "read")
        if refused:
            assert all(problem.isprintable() for problem in refused)
            return
        parts = (pictures.train, pictures.valid, pictures.test)
        used = [pictures.files.names[i] for part in parts if part.ids is not None for i in part.ids.tolist()]
        over = [each.name for each in pictures.files.skipped]
        assert len(used) == len(set(used))
        assert not set(used) & set(over) or form != "folder"
        assert set(used) <= there
        silent = {name for name in there - set(used) - set(over) if not inside_hidden(name)}
        assert not silent
        assert all(each.reason for each in pictures.files.skipped)
        assert all(name.isprintable() for name in (*used, *over, *pictures.classes))
        assert set(pictures.train.labels.tolist()) == set(range(len(pictures.classes)))


def inside_hidden(name: str) -> bool:
    """Whether it is a file inside a hidden folder that is not named as a picture: none that anybody would miss."""
    folders, last = name.split("/")[:-1], name.rpartition("/")[2]
    ends = last.lower().endswith((".png", ".jpg", ".jfif", ".jpe", ".webp", ".tif", ".heic"))
    return any(each.startswith(".") or each in ("@eaDir", "__MACOSX") for each in folders) and not ends
