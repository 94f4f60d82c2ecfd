"""What the commands take: presets, files and overrides."""

from pathlib import Path

import pytest

from ramify.cli.common import sort_given
from ramify.errors import ConfigError


def test_presets_files_and_overrides_are_told_apart(tmp_path: Path) -> None:
    own = tmp_path / "a=b.yaml"
    own.write_text("seed: 1\n")
    files, overrides = sort_given(["digits", str(own), "train.epochs=3"])
    assert [path.name for path in files] == ["digits.yaml", "a=b.yaml"]
    assert overrides == ["train.epochs=3"]


def test_a_folder_and_a_name_that_is_none_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(ConfigError) as error:
        sort_given(["holiday/", "digit"])
    folder, name = error.value.problems
    assert "ramify train photos data.source=holiday" in folder
    assert "(nearest: digits)" in name
