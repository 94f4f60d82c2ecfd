"""The card is read as it was written, in every place where it travels, and a damaged one is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.answer.card import (
    CARD,
    CARD_FORMAT,
    ExportCard,
    ExportedExit,
    ExportedFiles,
    ExportedPolicy,
    Precision,
    Quantization,
    card_text,
    parse_card,
    read_card,
)
from ramify.errors import CheckpointError, InputError
from ramify.exporting.write import Export
from ramify.ops.exits.certify import Certificate

shares = st.floats(0, 1)
counts = st.integers(0, 1000)
names = st.text(min_size=1, max_size=8)


@st.composite
def cards(draw: st.DrawFn) -> ExportCard:
    count = draw(st.integers(1, 4))
    of_exits = st.tuples(*[shares] * count)
    exits = [
        ExportedExit(i + 1, draw(st.integers(0, 10**12)), 7, draw(st.none() | shares), draw(st.none() | shares))
        for i in range(count)
    ]
    policy = ExportedPolicy(
        thresholds=draw(st.tuples(*[st.none() | shares] * (count - 1))),
        criterion=draw(st.sampled_from(["max_probability", "margin", "entropy", "patience"])),
        temperatures=draw(st.none() | st.tuples(*[st.floats(0.05, 20)] * count)),
        calibrated=draw(st.booleans()),
        description=draw(names),
        certificate=draw(st.none() | st.builds(Certificate, shares, shares, counts, counts, counts, shares, counts)),
    )
    precisions: list[Precision] = ["float32", "int8"]
    precision = draw(st.sampled_from(precisions))
    return ExportCard(
        format=CARD_FORMAT,
        ramify="0.1.0",
        name=draw(names),
        shape="folder",
        stage=None,
        precision=precision,
        input_shape=draw(st.tuples(*[st.integers(1, 64)] * 3)),
        mean=(0.5,),
        std=(0.25,),
        classes=tuple(draw(st.lists(names, min_size=2, max_size=5))),
        exits=tuple(exits),
        policy=policy,
        files=ExportedFiles("all_exits.onnx", "early_exit.onnx", tuple(f"stages/{at}.onnx" for at in range(count))),
        epoch=draw(st.integers(0, 1000)),
        opset=20,
        quantization=Quantization(512, 359, draw(of_exits), draw(of_exits)) if precision == "int8" else None,
    )


@settings(max_examples=30)
@given(cards())
def test_a_card_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, card: ExportCard) -> None:
    assert parse_card(card_text(card), "it") == card
    assert parse_card(card_text(card.part("stage", 2)), "it") == replace(card, shape="stage", stage=2)
    folder = tmp_path_factory.mktemp("card")
    (folder / CARD).write_text(card_text(card), encoding="utf-8")
    assert read_card(folder) == read_card(folder / CARD) == card


@pytest.mark.slow
def test_every_file_of_an_export_carries_its_part(exported: Export) -> None:
    folder, card = Path(exported.folder), exported.card
    assert read_card(folder) == card
    assert read_card(folder / "all_exits.onnx") == card.part("all_exits")
    assert read_card(folder / "early_exit.onnx") == card.part("early_exit")
    assert [read_card(folder / name) for name in card.files.stages] == [card.part("stage", at) for at in range(3)]
    assert card.policy.calibrated
    assert card.policy.temperatures is not None
    assert card.classes == tuple("0123456789")
    assert all(0.3 < each.test < 1 for each in card.exits if each.test is not None)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_onnx_file_is_refused(exported: Export, tmp_path: Path, share: float) -> None:
    content = Path(exported.folder, "all_exits.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: math.floor(share * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.onnx: .*accepted: "):
        read_card(cut)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged"),
        ("[1]", "is damaged"),
        ('{"format": 2}', "is damaged"),
        ('{"format": 1}', "got format 1; accepted: 2; export the network again"),
        ('{"format": 3}', "got format 3; accepted: up to 2; upgrade ramify"),
        ('{"format": "1"}', "got format '1'"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_what_is_no_card_is_refused(text: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=f"it: .*{said}"):
        parse_card(text, "it")


@settings(max_examples=30)
@given(cards(), st.data())
def test_a_card_that_lacks_a_field_is_refused(card: ExportCard, data: st.DataObject) -> None:
    document = json.loads(card_text(card))
    del document[
        data.draw(st.sampled_from(sorted(set(document) - {"opset", "quantization", "background", "range", "sha256"})))
    ]
    with pytest.raises(CheckpointError, match="it: is damaged"):
        parse_card(json.dumps(document), "it")


def test_a_folder_without_a_card_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(b"PK no zip")
    for path in (tmp_path, tmp_path / "none.onnx", tmp_path / "x.pt2"):
        with pytest.raises(CheckpointError, match="accepted: "):
            read_card(path)


GOOD = card_text(
    ExportCard(
        format=CARD_FORMAT,
        ramify="0",
        name="demo",
        shape="folder",
        stage=None,
        precision="float32",
        input_shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.25,),
        classes=("0", "1"),
        exits=(ExportedExit(1, 10, 1, None, 0.5), ExportedExit(2, 20, 2, None, 0.5)),
        policy=ExportedPolicy((0.9,), "margin", None, calibrated=False, description="policy", certificate=None),
        files=ExportedFiles("all_exits.onnx", "early_exit.onnx", ("stages/0.onnx", "stages/1.onnx")),
        epoch=1,
    )
)
WRONG: list[tuple[str, object]] = [
    ("input_shape", [1, 8]),
    ("input_shape", [1, 0, 8]),
    ("classes", ["0"]),
    ("classes", [0, 1]),
    ("exits", [{"cells": 1}, {"cells": 2}]),
    ("exits", []),
    ("policy.thresholds", [1.5]),
    ("policy.thresholds", [True]),
    ("policy.thresholds", []),
    ("policy.temperatures", [1.0]),
    ("policy.temperatures", [0, 1]),
    ("files.stages", ["stages/0.onnx"]),
    ("files.stages", ["/etc/passwd", "stages/1.onnx"]),
    ("files.stages", ["../0.onnx", "stages/1.onnx"]),
    ("files.stages", ["..\\0.onnx", "stages/1.onnx"]),
    ("files", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={value}"[:40] for key, value in WRONG])
def test_what_makes_no_sense_is_refused(key: str, value: object) -> None:
    document = json.loads(GOOD)
    *above, name = key.split(".")
    (document[above[0]] if above else document)[name] = value
    with pytest.raises(CheckpointError, match="it: is damaged"):
        parse_card(json.dumps(document), "it")


def test_a_threshold_asked_for_takes_the_place_of_those_on_the_card() -> None:
    card = parse_card(GOOD, "it").at_threshold(0.25)
    assert (card.policy.thresholds, card.policy.criterion) == ((0.25,), "margin")
    assert card.policy.policy.thresholds == (0.25,)
    with pytest.raises(InputError, match=r"threshold: got 2; accepted: a number in \[0, 1\]"):
        card.at_threshold(2)


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_anything_else_is_refused_too(document: object) -> None:
    with pytest.raises(CheckpointError, match="is damaged"):
        parse_card(json.dumps(document), "it")
