"""Labels from a table: files are found by name, parts and groups are read, and every fault names its line."""

from collections import Counter
from pathlib import Path

import pytest

from ramify.config.rules import DataConfig
from ramify.data.pictures import Part, PictureSet
from ramify.data.sources import load_pictures
from ramify.data.table import read_table
from ramify.errors import DataError
from tests.data.making import picture, tar_bytes, write_tree, zip_bytes

FILES = {f"images/{i}.png": picture(10 * i) for i in range(12)}
ROWS = [f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(12)]


def table(*rows: str, header: str = "file,label") -> bytes:
    return "\n".join([header, *rows]).encode()


def load(root: Path, content: bytes, form: str = "folder", **data: object) -> PictureSet:
    files = {**FILES, "labels.csv": content}
    path = write_tree(root / "set", files) if form == "folder" else root / f"set.{form}"
    if form != "folder":
        path.write_bytes(tar_bytes(files) if form == "tar" else zip_bytes(files))
    given = {"source": str(path), "labels": "labels.csv", "test_fraction": 0.3, **data}
    return load_pictures(DataConfig.model_validate(given))


def ids(part: Part) -> list[int]:
    assert part.ids is not None
    return part.ids.tolist()


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_a_table_says_what_is_what(tmp_path: Path, form: str) -> None:
    pictures = load(tmp_path, table(*ROWS[:10]), form)
    assert pictures.classes == ("cat", "dog")
    assert len(pictures.train) + len(pictures.test) == 10
    assert {each.name: each.reason for each in pictures.files.skipped} == {
        "images/10.png": "not in the table of labels",
        "images/11.png": "not in the table of labels",
    }
    labels = dict(zip(pictures.files.names, pictures.files.labels.tolist(), strict=True))
    assert labels["images/3.png"] == 0


def test_a_table_says_the_part(tmp_path: Path) -> None:
    parts = ["Train"] * 6 + ["val"] * 3 + ["testing"] * 3
    rows = [f"{row},{part}" for row, part in zip(ROWS, parts, strict=True)]
    pictures = load(tmp_path, table(*rows, header="Filename,Class,Split"))
    assert (len(pictures.train), len(pictures.valid), len(pictures.test)) == (6, 3, 3)


def test_groups_are_never_in_two_parts(tmp_path: Path) -> None:
    rows = [f"{row},person{i // 4}" for i, row in enumerate(ROWS)]
    for data in ({}, {"group": "person"}, {"group": r"images/(\d)"}):
        header = "file,label,person" if data.get("group") == "person" else "file,label,group"
        pictures = load(tmp_path, table(*rows, header=header), **data)
        groups = pictures.files.groups
        assert groups is not None
        parts = [{groups[i] for i in ids(part)} for part in (pictures.train, pictures.test)]
        assert all(parts)
        assert not parts[0] & parts[1]


@pytest.mark.parametrize("group", [None, r"images/(\d)"])
def test_folds_are_a_partition(tmp_path: Path, group: str | None) -> None:
    seen: Counter[str] = Counter()
    for k in (1, 2, 3):
        pictures = load(tmp_path, table(*ROWS), fold=[k, 3], group=group)
        tested = [pictures.files.names[i] for i in ids(pictures.test)]
        trained = [pictures.files.names[i] for i in ids(pictures.train)]
        assert len(tested) + len(trained) == 12
        assert not set(tested) & set(trained)
        if group is None:
            assert pictures.test.labels.bincount().tolist() == [2, 2]
        seen.update(tested)
    assert seen == Counter(list(FILES))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table("gone.png,cat", *ROWS), "labels.csv:2: got gone.png, which is not there"),
        (table(*ROWS, "0.png,cat"), "labels.csv:14: got 0.png as 'cat', which line 2 has as 'dog'"),
        (
            table("0.png,cat,train", "0.png,cat,test", header="file,label,part"),
            "labels.csv:3: got 0.png as 'test', which line 2 has as 'train'; accepted: one part",
        ),
        (table(*ROWS, "1.png,"), "labels.csv:14: got no label"),
        (table(*ROWS, header="a,b"), "got the columns a, b"),
        (b"", "of an empty file"),
        (b"\xff\xfe\x00", "is not text"),
        (table("0.png,cat,nowhere", header="file,label,part"), "part: got 'nowhere'"),
        (table("0.png,cat", "1.png,cat"), "got 1 classes"),
        (table("0.png,cat,train", "1.png,dog,train", "2.png,cow,test", header="file,label,part"), "class cow"),
    ],
)
def test_a_fault_names_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, content)
    assert said in str(caught.value)


def test_a_group_is_a_column_or_found_in_every_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"group: got 'pesron' \(nearest: person\); accepted: file, label, person"):
        load(tmp_path, table(*(f"{row},p" for row in ROWS), header="file,label,person"), group="pesron")
    with pytest.raises(DataError, match="finds no group in 10 pictures, such as images/"):
        load(tmp_path, table(*ROWS), group=r"images/(1\d)?")


def test_folders_say_the_parts_where_the_table_does_not(tmp_path: Path) -> None:
    files = {f"{'test' if i > 7 else 'train'}/{i}.png": picture(10 * i) for i in range(12)}
    path = write_tree(tmp_path, {**files, "labels.csv": table(*ROWS)})
    pictures = load_pictures(DataConfig(source=str(path), labels="labels.csv"))
    assert (len(pictures.train), len(pictures.test)) == (8, 4)
    assert "labels.csv: names no parts; the folders do: test, train" in pictures.files.notes


@pytest.mark.parametrize("data", [{"fold": [1, 2]}, {"test_fraction": 0.4}])
def test_exact_copies_stay_in_one_part(tmp_path: Path, data: dict[str, object]) -> None:
    files = {f"{'ab'[i // 6]}/{i}{copy}.png": picture(10 * i) for i in range(12) for copy in "xyz"}
    pictures = load_pictures(DataConfig.model_validate({"source": str(write_tree(tmp_path, files)), **data}))
    trained, tested = (
        {bytes(pictures.files.digests[i].tolist()) for i in ids(part)} for part in (pictures.train, pictures.test)
    )
    assert tested
    assert not trained & tested


def test_separators_and_endings_may_differ() -> None:
    assert read_table("\ufefffile;label\r\n1;é\r\n".encode(), "it")[0].label == "é"
    assert read_table(b"label\tfile\ncat\ta/1.png\n", "it")[0].file == "a/1.png"


def test_an_ending_may_be_left_out(tmp_path: Path) -> None:
    rows = [row.replace(".png", "") for row in ROWS]
    assert len(load(tmp_path, table(*rows, header="id,label")).files.names) == 12


def test_a_table_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    path = write_tree(tmp_path, FILES)
    with pytest.raises(DataError, match=r"data\.labels: got 'none\.csv'"):
        load_pictures(DataConfig(source=str(path), labels="none.csv"))
    with pytest.raises(DataError, match=r"data\.labels: got 'x'; accepted: null"):
        load_pictures(DataConfig(labels="x"))
