"""Odd folders: each row of the table in docs/pictures.md is a test here, as a folder, a tar and a zip."""

import io
import os
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ramify.config.rules import DataConfig
from ramify.data import listing
from ramify.data.folder import load_path
from ramify.data.layout import part_of
from ramify.data.listing import DEEPER, HEIC, HIDDEN, LINK, NOT_A_PICTURE, OTHER_PART, OUTSIDE, THUMBNAIL, counts
from ramify.data.names import printable, shown
from ramify.data.pictures import PictureSet
from ramify.data.sources import load_pictures
from ramify.errors import DataError
from tests.data.making import encoded, picture, tar_bytes, tree, write_tree, zip_bytes

FLAT = tree({"cat": 4, "dog": 4})
FORMS = ("folder", "tar", "zip")


def made(root: Path, files: Mapping[str, bytes], form: str) -> Path:
    if form == "folder":
        return write_tree(root / "set", files)
    root.mkdir(exist_ok=True)
    path = root / f"set.{form}"
    path.write_bytes(tar_bytes(files) if form == "tar" else zip_bytes(files))
    return path


def names(pictures: PictureSet, part: str = "train") -> list[str]:
    ids = getattr(pictures, part).ids
    assert ids is not None
    return [pictures.files.names[i] for i in ids.tolist()]


def skipped(pictures: PictureSet) -> dict[str, str]:
    return {each.name: each.reason for each in pictures.files.skipped}


def problem(path: Path, **data: object) -> str:
    with pytest.raises(DataError) as caught:
        load_pictures(DataConfig.model_validate({"source": str(path), **data}))
    return str(caught.value)


def test_each_row_of_the_table_is_a_test() -> None:
    root = Path(__file__).parents[2]
    page = (
        (root / "docs" / "pictures.md").read_text().partition("## What we do with odd folders")[2].partition("## ")[0]
    )
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    source = "".join(path.read_text() for path in (root / "tests" / "data").glob("test_*.py"))
    for row in rows:
        name = row.rpartition("`")[0].rpartition("`")[2]
        assert f"def {name}(" in source, row


# --- what is passed over ------------------------------------------------------------------------------


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
    pictures = load_path(made(tmp_path, {**FLAT, **files}, form))
    assert sorted(names(pictures)) == sorted(FLAT)
    assert skipped(pictures) == odd
    assert counts(pictures.files.skipped) == Counter(odd.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_judged_by_its_content_where_its_ending_says_nothing(tmp_path: Path, form: str) -> None:
    files = {f"cat/{name}": picture(9, kind="JPEG") for name in ("a.jfif", "b.jpe", "c", "d.dat")}
    pictures = load_path(made(tmp_path, {**FLAT, **files}, form))
    assert set(files) <= set(names(pictures))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_every_format_is_known_by_its_content(kind: str) -> None:
    assert listing.known_by_content(picture(kind=kind)[:32]) == ""
    assert listing.known_by_content(b"BM is how this text begins") == NOT_A_PICTURE


@pytest.mark.parametrize("form", FORMS)
def test_heic_is_named_where_its_package_is_missing(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "reads_heic", lambda: False)
    content = b"\0\0\0\x18ftypheic" + bytes(100)
    pictures = load_path(made(tmp_path, {**FLAT, "cat/phone.HEIC": content, "cat/phone": content}, form))
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
    assert skipped(load_path(path)) == {"cat/broken.png": LINK, "cat/again/": LINK}


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
    pictures = load_path(made(tmp_path, {**FLAT, "../up.png": picture(), "cat/../../up.png": picture()}, form))
    assert skipped(pictures) == {"../up.png": listing.OUTWARD, "cat/../../up.png": listing.OUTWARD}


# --- parts and classes --------------------------------------------------------------------------------


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
    pictures = load_path(made(tmp_path, tree(sizes), form))
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
        (tree({"train/a": 2, "train/b": 2, "test/c": 2}), "class c is in the test part and not in train"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_what_would_be_taken_for_classes_is_refused(
    tmp_path: Path, form: str, files: dict[str, bytes], said: str
) -> None:
    assert said in problem(made(tmp_path, files, form))


@pytest.mark.parametrize("form", FORMS)
def test_pictures_beside_masks_are_taken_alone(tmp_path: Path, form: str) -> None:
    sizes = {f"{name}/{kind}": 3 for name in ("covid", "normal") for kind in ("images", "masks")}
    pictures = load_path(made(tmp_path, tree(sizes), form))
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
    pictures = load_path(made(tmp_path, tree({composed: 3, "train/tea": 3, decomposed: 2, "test/tea": 2}), form))
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


def test_a_shown_name_is_one_file_s_alone() -> None:
    different = ["a\x1b", "a\\x1b", "a\udc80", "a\\x80", "a\\\\x80"]
    assert len({shown(name) for name in different}) == len(different)
    assert part_of("trainset") == "train"
    assert part_of("training data") == "train"


# --- values -------------------------------------------------------------------------------------------


def glyph(mode: str, ink: tuple[int, ...], nothing: tuple[int, ...]) -> bytes:
    image = Image.new(mode, (16, 16), nothing)
    ImageDraw.Draw(image).rectangle((4, 4, 11, 11), fill=ink)
    return encoded(image)


@pytest.mark.parametrize(
    ("background", "ground"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ([10, 20, 30], (10, 20, 30))]
)
def test_transparency_is_laid_on_the_background(tmp_path: Path, background: object, ground: tuple[int, ...]) -> None:
    red, clear = (200, 0, 0, 255), (0, 0, 0, 0)
    path = write_tree(tmp_path, {f"{name}/{i}.png": glyph("RGBA", red, clear) for name in "ab" for i in range(3)})
    image = load_pictures(DataConfig.model_validate({"source": str(path), "background": background})).train.images[0]
    assert (image[:, 0, 0].tolist(), image[:, 8, 8].tolist()) == (list(ground), [200, 0, 0])


def test_ink_of_the_background_s_color_is_not_lost(tmp_path: Path) -> None:
    white = glyph("LA", (255, 255), (255, 0))
    pictures = load_path(write_tree(tmp_path, {f"{name}/{i}.png": white for name in "ab" for i in range(3)}))
    assert pictures.train.images[0, 0, (0, 8), (0, 8)].tolist() == [0, 255]
    assert any("opposite color" in note for note in pictures.files.notes)


def test_a_palette_s_transparency_is_seen(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 10, 200, 10])
    ImageDraw.Draw(image).rectangle((4, 4, 11, 11), fill=1)
    content = encoded(image, transparency=0)
    image_ = load_path(
        write_tree(tmp_path, {f"{name}/{i}.png": content for name in "ab" for i in range(2)})
    ).train.images
    assert image_[0, :, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")])
@pytest.mark.parametrize("form", FORMS)
def test_deep_pictures_are_scaled_by_the_range_of_the_set(
    tmp_path: Path, form: str, dtype: type[np.uint16], kind: str
) -> None:
    levels = {"a/0": 100, "a/1": 300, "b/0": 2100, "b/1": 4100}  # 12 bits in 16: by the upper 8 all would be black
    files = {
        f"{name}.{kind.lower()}": encoded(Image.fromarray(np.full((8, 8), level, dtype)), kind)
        for name, level in levels.items()
    }
    pictures = load_path(made(tmp_path, files, form))
    assert pictures.files.range == (100.0, 4100.0)
    assert pictures.train.images[:, 0, 0, 0].tolist() == [0, 13, 128, 255]
    config = DataConfig(range=(0.0, 8200.0))
    assert load_path(made(tmp_path, files, form), None, config).train.images[-1, 0, 0, 0] == 128


def test_a_nearly_constant_set_is_said(tmp_path: Path) -> None:
    dull = {f"{name}/{i}.png": picture(i) for name in "ab" for i in range(3)}
    assert any("nearly constant" in note for note in load_path(write_tree(tmp_path, dull)).files.notes)
    assert any("one value throughout" in note for note in load_path(write_tree(tmp_path / "more", FLAT)).files.notes)


def test_colors_of_16_bits_are_said(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes([16 * y, 0] * 3 * 8) for y in range(8))

    def chunk(kind: bytes, content: bytes) -> bytes:
        import zlib

        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    import zlib

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    wide = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    pictures = load_path(write_tree(tmp_path, {**FLAT, "cat/wide.png": wide}))
    assert any("1 pictures have colors of 16 bits" in note for note in pictures.files.notes)


# --- broken pictures, copies, changes ------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_broken_pictures_are_all_named_or_passed_over(tmp_path: Path, form: str) -> None:
    broken = {"cat/x.png": b"hello", "dog/y.png": picture(size=(64, 64))[:60], "dog/small.png": picture(size=(3, 9))}
    path = made(tmp_path, {**FLAT, **broken}, form)
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


# --- bombs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_limits_are_sentences_that_name_their_key(tmp_path: Path, form: str) -> None:
    path = made(tmp_path, {**FLAT, "cat/" + "deep/" * 40 + "x.png": picture()}, form)
    assert "data.max_depth = 32" in problem(path)
    assert "data.max_entries" in problem(path, max_entries=3)
    path = made(tmp_path / "more", {**FLAT, "cat/large.bmp": picture(size=(800, 800), kind="BMP")}, form)
    assert "data.max_file_mb = 1 MB" in problem(path, max_file_mb=1)
    assert "640,000 pixels, more than data.max_pixels" in problem(path, max_pixels=100_000)
    if form != "folder":
        assert "data.max_archive_gb = 0.001 GB" in problem(path, max_archive_gb=0.001)


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A header whose size needs the binary form."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[136:148] = b"00000000000\x00"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g"])
def test_a_tar_header_that_lies_is_a_sentence(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(tar_bytes(FLAT)[: 512 * 16] + tar_header(b"cat/huge.png", 2**60, kind) + bytes(2048))
    message = problem(path)
    assert str(path) in message
    assert "data.max_file_mb" in message


def test_a_zip_that_promises_too_much_is_a_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FLAT.items():
            archive.writestr(name, content)
        archive.writestr("cat/bomb.png", bytes(3_000_000))
    assert (tmp_path / "set.zip").stat().st_size < 10_000
    assert "data.max_file_mb = 2 MB" in problem(tmp_path / "set.zip", max_file_mb=2)


# --- larger than memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ["L", "RGB"])
def test_a_set_in_a_file_is_the_set_in_memory(tmp_path: Path, form: str, first: str) -> None:
    files = {f"{name}/{i}.png": picture(20 * i, mode=first if i < 2 else "RGB") for name in "ab" for i in range(4)}
    files |= {"a/9.png": b"broken"}
    path = made(tmp_path, files, form)
    inside = load_path(path, None, DataConfig(broken="skip"))
    for _ in range(2):  # decoded, and then from the cache
        outside = load_path(path, None, DataConfig(broken="skip", memory_gb=0.0))
        assert inside.train.in_memory
        assert not outside.train.in_memory
        assert outside.shape == inside.shape == (3, 8, 8)
        assert torch.equal(outside.train.images, inside.train.images)
        index = torch.tensor([5, 0, 3])
        assert torch.equal(outside.train[index].images, inside.train.images[index])
        assert torch.equal(outside.train[2:6][1:].images, inside.train.images[3:6])
