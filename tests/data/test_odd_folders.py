"""Odd folders: each row of the table in docs/pictures.md is a test here, as a folder, a tar and a zip."""

import io
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from ramify.answer.picture import Header, read_header
from ramify.config.rules import DataConfig
from ramify.data import archive, listing
from ramify.data.folder import load_path
from ramify.data.layout import part_of
from ramify.data.listing import (
    BROKEN,
    DEEPER,
    HEIC,
    HIDDEN,
    LINK,
    NOT_A_PICTURE,
    OTHER_PART,
    OUTSIDE,
    THUMBNAIL,
    counts,
)
from ramify.data.names import printable, shown
from ramify.data.sources import load_pictures
from tests.data.making import FLAT, FORMS, names, picture, problem, skipped, tree, write_source, write_tree, zip_bytes


def test_each_row_of_the_table_is_a_test() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "pictures.md").read_text().partition("## Unusual folders")[2].partition("## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    source = "".join(path.read_text() for path in (root / "tests" / "data").glob("test_*.py"))
    for row in rows:
        name = row.rpartition("`")[0].rpartition("`")[2]
        assert f"def {name}(" in source, row


@pytest.mark.parametrize("form", FORMS)
def test_what_is_passed_over_is_named_with_its_reason(tmp_path: Path, form: str) -> None:
    odd = {
        "README.txt": NOT_A_PICTURE,
        "cover.png": OUTSIDE,
        "cat/notes.md": NOT_A_PICTURE,
        "cat/.hidden.png": HIDDEN,
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg": THUMBNAIL,
        "cat/.thumbnails/0.png": THUMBNAIL,
        "cat/Thumbs.db": THUMBNAIL,
        "__MACOSX/cat/._0.png": THUMBNAIL,
        "cat/more/5.png": DEEPER,
    }
    content = picture(9, kind="JPEG")
    files = {name: b"text" if reason == NOT_A_PICTURE else content for name, reason in odd.items()}
    pictures = load_path(write_source(tmp_path, {**FLAT, **files}, form))
    assert sorted(names(pictures)) == sorted(FLAT)
    assert skipped(pictures) == odd
    assert counts(pictures.files.skipped) == Counter(odd.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_judged_by_its_content_where_its_ending_says_nothing(tmp_path: Path, form: str) -> None:
    files = {f"cat/{name}": picture(9, kind="JPEG") for name in ("a.jfif", "b.jpe", "c", "d.dat")}
    pictures = load_path(write_source(tmp_path, {**FLAT, **files}, form))
    assert set(files) <= set(names(pictures))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_every_format_is_known_by_its_content(kind: str) -> None:
    assert listing.known_by_content(picture(kind=kind)[:32]) == ""
    assert listing.known_by_content(b"BM is how this text begins") == NOT_A_PICTURE


@pytest.mark.parametrize("form", FORMS)
def test_heic_is_named_where_its_package_is_missing(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "reads_heic", lambda: False)
    content = b"\0\0\0\x18ftypheic" + bytes(100)
    pictures = load_path(write_source(tmp_path, {**FLAT, "cat/phone.HEIC": content, "cat/phone": content}, form))
    assert skipped(pictures) == {"cat/phone.HEIC": HEIC, "cat/phone": HEIC}


def test_avif_is_read(tmp_path: Path) -> None:
    if not listing.reads_avif():
        pytest.skip("this Pillow does not")
    pictures = load_path(write_tree(tmp_path, {**FLAT, "cat/a.avif": picture(200, kind="AVIF")}))
    assert "cat/a.avif" in names(pictures)


def test_links_that_lead_nowhere_or_in_a_circle_are_named(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "set", FLAT)
    (path / "cat" / "broken.png").symlink_to(path / "nowhere")
    (path / "cat" / "again").symlink_to(path)
    (path / "cat" / "itself.png").symlink_to("itself.png")
    assert skipped(load_path(path)) == {"cat/broken.png": LINK, "cat/again/": LINK, "cat/itself.png": LINK}


def test_a_hard_link_in_a_tar_is_the_file_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(content)
            tar.addfile(member, io.BytesIO(content))

        for name, content in FLAT.items():
            add(name, content)
        add("cat/linked.png", kind=tarfile.LNKTYPE, link="cat/0.png")
        add("cat/0.png", picture(250))  # replaces the first; what is linked stays
        add("cat/gone.png", kind=tarfile.LNKTYPE, link="cat/none.png")
        add("dog/soft.png", kind=tarfile.SYMTYPE, link="0.png")
    pictures = load_path(path)
    shades = dict(zip(names(pictures), pictures.train.images[:, 0, 0, 0].tolist(), strict=True))
    assert (shades["cat/0.png"], shades["cat/linked.png"]) == (250, 0)
    assert counts(pictures.files.skipped) == {LINK: 2, listing.REPLACED: 1}


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_name_that_leads_out_of_an_archive_is_passed_over(tmp_path: Path, form: str) -> None:
    pictures = load_path(write_source(tmp_path, {**FLAT, "../up.png": picture(), "cat/../../up.png": picture()}, form))
    assert skipped(pictures) == {"../up.png": listing.OUTWARD, "cat/../../up.png": listing.OUTWARD}


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "dev", "eval"),
        ("training_set", "valid_set", "test set"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_parts_are_known_by_their_usual_names(tmp_path: Path, form: str, train: str, valid: str, test: str) -> None:
    sizes = {f"{part}/{name}": 2 for part in (train, valid, test) for name in ("a", "b")}
    pictures = load_path(write_source(tmp_path, tree(sizes), form))
    assert pictures.classes == ("a", "b")
    assert (len(pictures.train), len(pictures.valid), len(pictures.test)) == (4, 4, 4)


def test_a_validation_folder_is_the_validation_set(tmp_path: Path) -> None:
    files = tree({"train/a": 20, "train/b": 20, "val/a": 3, "val/b": 3})
    pictures = load_pictures(DataConfig(source=str(write_tree(tmp_path, files))))
    assert names(pictures, "valid") == sorted(name for name in files if name.startswith("val/"))
    assert len(pictures.train) + len(pictures.test) == 40
    assert len(pictures.test) > 0


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_path(write_tree(tmp_path, tree({"train": 2, "bus": 2, "val": 2}))).classes == ("bus", "train", "val")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (tree({"first/a": 2, "first/b": 2, "second/a": 2, "second/b": 2}), "hold the same folders (a, b)"),
        (tree({"train/a": 2, "train/b": 2, "Training/a": 1, "Training/b": 1}), "both by their names the train part"),
        ({"train/1.png": picture(), "test/1.png": picture()}, "no folders of classes"),
        (tree({"a": 2, "b": 2, "test/a": 1, "test/b": 1}), "got the folder test beside classes that are also in it"),
        (tree({"train/a": 2, "train/b": 2, "test/c": 2}), "class c is in the test part and not in train"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_what_would_be_taken_for_classes_is_refused(
    tmp_path: Path, form: str, files: dict[str, bytes], said: str
) -> None:
    assert said in problem(write_source(tmp_path, files, form))


@pytest.mark.parametrize("form", FORMS)
def test_pictures_beside_masks_are_taken_alone(tmp_path: Path, form: str) -> None:
    sizes = {f"{name}/{kind}": 3 for name in ("covid", "normal") for kind in ("images", "masks")}
    pictures = load_path(write_source(tmp_path, tree(sizes), form))
    assert pictures.classes == ("covid", "normal")
    assert len(pictures.train) == 6
    assert set(skipped(pictures).values()) == {DEEPER}


def test_a_folder_beside_the_parts_is_named(tmp_path: Path) -> None:
    sizes = {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "unlabeled/x": 3}
    pictures = load_path(write_tree(tmp_path, tree(sizes)))
    assert list(skipped(pictures).values()) == [OTHER_PART] * 3


def test_a_class_that_a_part_lacks_is_said(tmp_path: Path) -> None:
    pictures = load_path(write_tree(tmp_path, tree({"train/a": 2, "train/b": 2, "Test/a": 2})))
    assert len(pictures.test) == 2
    assert any("class b has no pictures in Test" in note for note in pictures.files.notes)


@pytest.mark.parametrize("form", FORMS)
def test_unicode_forms_are_one_class(tmp_path: Path, form: str) -> None:
    composed, decomposed = "train/caf\u00e9", "test/cafe\u0301"
    pictures = load_path(
        write_source(tmp_path, tree({composed: 3, "train/tea": 3, decomposed: 2, "test/tea": 2}), form)
    )
    assert pictures.classes == ("caf\u00e9", "tea")
    assert pictures.test.labels.tolist() == [0, 0, 1, 1]


def test_control_characters_are_written_out(tmp_path: Path) -> None:
    pictures = load_path(write_tree(tmp_path, tree({"a\x1b[2J": 2, "b\u202egnp": 2})))
    assert pictures.classes == ("a\\x1b[2J", "b\\u202egnp")
    assert all(name.isprintable() for name in pictures.files.names)
    assert printable("\r\x07\x9b") == "\\x0d\\x07\\x9b"


def test_names_that_are_not_utf8_are_read_and_told_apart(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path / "set")
    for folder in (b"caf\xe9", b"caf\xe8"):
        os.makedirs(raw + b"/" + folder)  # noqa: PTH103 - a path of bytes
        for i in range(2):
            with open(raw + b"/" + folder + b"/%d.png" % i, "wb") as file:  # noqa: PTH123
                file.write(picture(40 + i))
    pictures = load_path(tmp_path / "set")
    assert pictures.classes == ("caf\\xe8", "caf\\xe9")
    assert len(pictures.train) == 4
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "set", "set")
    assert load_path(tmp_path / "set.tar").classes == pictures.classes


def test_a_zip_of_windows_has_folders(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_bytes(FLAT).replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    assert load_path(path).classes == ("cat", "dog")


@pytest.mark.parametrize(("raw", "name"), [("é".encode(), "é"), (b"\x82", "é"), (b"\xe4\xf6", "Σ÷")])
def test_names_of_a_zip_of_old_are_read(tmp_path: Path, raw: bytes, name: str) -> None:
    path = tmp_path / "set.zip"
    stand_in = b"#" * len(raw)
    path.write_bytes(zip_bytes(tree({stand_in.decode(): 2, "dog": 2})).replace(stand_in + b"/", raw + b"/"))
    pictures = load_path(path)
    assert name in pictures.classes
    assert any("code page 437" in note for note in pictures.files.notes) == (raw != "é".encode())


def test_a_zip_may_have_its_names_in_an_extra_field() -> None:
    """Python reads that field from 3.12 on; the name may then be one that code page 437 lacks."""
    assert archive._zip_name(zipfile.ZipInfo("кот/1.png")) == ("кот/1.png", True)


def test_a_shown_name_is_one_file_s_alone() -> None:
    different = ["a\x1b", "a\\x1b", "a\udc80", "a\\x80", "a\\\\x80"]
    assert len({shown(name) for name in different}) == len(different)
    assert part_of("trainset") == "train"
    assert part_of("training data") == "train"


@pytest.mark.parametrize("form", FORMS)
def test_broken_pictures_are_all_named_or_passed_over(tmp_path: Path, form: str) -> None:
    broken = {"cat/x.png": b"hello", "dog/y.png": picture(size=(64, 64))[:60], "dog/small.png": picture(size=(3, 9))}
    path = write_source(tmp_path, {**FLAT, **broken}, form)
    message = problem(path)
    assert all(name in message for name in broken)
    assert "data.broken=skip" in message
    pictures = load_path(path, None, DataConfig(broken="skip"))
    assert sorted(names(pictures)) == sorted(FLAT)
    assert set(skipped(pictures)) == set(broken)
    assert counts(pictures.files.skipped) == {"broken": 3}


def test_a_class_of_broken_pictures_alone_is_refused(tmp_path: Path) -> None:
    path = write_tree(tmp_path, {**FLAT, "emu/1.png": b"-"})
    assert "class emu has no training pictures that can be read" in problem(path, broken="skip")
    path = write_tree(tmp_path / "all", {"cat/1.png": b"-", "dog/1.png": b"-"})
    assert "got no picture that can be read, of 2" in problem(path, broken="skip")


def test_damaged_exif_data_leave_a_picture_as_it_lies(tmp_path: Path) -> None:
    content = picture(200, kind="JPEG", dpi=(72, 72), exif=b"Exif\0\0garbage!")
    assert "cat/a.jpg" in names(load_path(write_tree(tmp_path, {**FLAT, "cat/a.jpg": content})))
    assert read_header(content, "it") == Header(8, 8, "RGB", False)


def test_an_archive_is_read_again_once_heic_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_source(tmp_path, {**FLAT, "cat/phone.heic": b"-"}, "zip")
    for readable, reason in ((False, HEIC), (True, BROKEN)):
        for module in ("listing", "folder"):
            monkeypatch.setattr(f"ramify.data.{module}.reads_heic", lambda readable=readable: readable)
        assert skipped(load_path(path, None, DataConfig(broken="skip")))["cat/phone.heic"].startswith(reason)


def test_several_sizes_are_counted_width_first(tmp_path: Path) -> None:
    path = write_tree(tmp_path, {**FLAT, "cat/wide.png": picture(size=(9, 20))})
    assert "8x8 (8: cat/0.png), 20x9 (1: cat/wide.png)" in problem(path)


def test_the_cache_never_gives_the_labels_of_yesterday(tmp_path: Path) -> None:
    path = write_tree(
        tmp_path, {f"{name}/{i}.bmp": picture(s, kind="BMP") for name, s in (("a", 0), ("b", 200)) for i in "12"}
    )
    for file in path.rglob("*.bmp"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    before = load_path(path).train.images[:, 0, 0, 0].tolist()
    (path / "a").rename(path / "c")
    (path / "b").rename(path / "a")
    (path / "c").rename(path / "b")
    assert load_path(path).train.images[:, 0, 0, 0].tolist() == before[::-1]
