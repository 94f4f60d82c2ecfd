import random
from pathlib import Path

import pytest

from ramify.errors import CheckpointError, ConfigError
from ramify.sealed import check_text, next_number, parse_lines, sealed_line, sealed_lines, sealed_text
from tests.conftest import CommandLine, tiny

RECORDS = [{"epoch": epoch, "loss": 1 / epoch} for epoch in range(1, 6)]


def test_every_changed_line_is_known_by_its_number() -> None:
    lines = sealed_lines(RECORDS).splitlines(keepends=True)
    assert parse_lines(b"".join(lines)).damaged == ()
    assert parse_lines(b"".join(lines[:2] + lines[3:])).damaged == (3,)
    assert parse_lines(b"".join(lines[:2] + lines[1:])).damaged == (2,)
    assert parse_lines(b"".join([*lines[:2], b"{\n", *lines[3:]])).damaged == (3,)
    assert parse_lines(b"".join([*lines[:2], lines[2].replace(b"0.3", b"0.4"), *lines[3:]])).damaged == (3,)
    cut = parse_lines(b"".join(lines)[:-5])
    assert (cut.damaged, len(cut.records)) == ((), 4)


def test_lines_of_an_older_ramify_are_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    line = sealed_line({"epoch": 3}, next_number(path))
    with path.open("a") as file:
        file.write(line)
    found = parse_lines(path.read_bytes())
    assert [record["epoch"] for record in found.records] == [1, 2, 3]
    assert found.damaged == ()


def test_no_cut_or_flip_of_a_text_reads_as_another() -> None:
    whole = sealed_text(b"seed: 1\ntrain.epochs: 30\n")
    body = whole.partition(b"\n")[2]
    draw = random.Random(1)
    changed = [whole[:at] for at in range(1, len(whole))]
    for _ in range(500):
        at = draw.randrange(len(whole))
        changed.append(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
    for content in changed:
        try:
            check_text(content, "config.yaml")
        except CheckpointError:
            continue
        assert content.endswith(b"\n" + body), content


def test_a_configuration_that_was_edited_by_hand(tmp_path: Path) -> None:
    from ramify.config.read import read_config, to_yaml

    path = tmp_path / "config.yaml"
    path.write_bytes(sealed_text(to_yaml(tiny()).encode()).replace(b"epochs: 4", b"epochs: 5"))
    with pytest.raises(ConfigError, match="without its first line if you changed it yourself"):
        read_config([path])
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert read_config([path]).train.epochs == 5


def test_an_override_may_be_longer_than_a_name_of_a_file(ramify: CommandLine) -> None:
    answer = ramify("config", "network.kind=full_ic", f"network.structure=[{','.join(['1', '0'] * 64)}]")
    assert answer.code == 0
    assert answer.out.count("1, 0") >= 60
    answer = ramify("train", "x" * 300)
    assert (answer.code, "does not exist" in answer.err) == (2, True)
    assert ramify("info", "x" * 300).code == 2
    assert ramify("predict", "x" * 300, "y.png").code == 2
    answer = ramify("config", "seed=" + "[" * 2000)
    assert (answer.code, "Traceback" in answer.err) == (2, False)
