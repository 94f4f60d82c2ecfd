"""The runtime answers as the network does, with numpy and ONNX Runtime alone, and computes no more than it must."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ramify.answer.runtime import Runtime
from ramify.errors import InputError
from ramify.exporting.write import Export
from ramify.run.saved import load, load_policy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runtime(exported: Export) -> Runtime:
    return Runtime(exported.folder, threads=1)


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        allowed = sys.stdlib_module_names | {"numpy", "onnxruntime", "PIL", "ramify"}
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import numpy as np
from ramify.answer.runtime import Runtime

pictures = np.load(sys.argv[2])
found = Runtime(sys.argv[1]).predict(pictures)
print(found.exits.tolist(), found.classes.tolist())
"""


def test_it_needs_nothing_but_numpy_and_onnx_runtime(
    exported: Export, runtime: Runtime, digits: Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "pictures.npy", digits[:40].numpy())
    command = [sys.executable, "-c", ALONE, exported.folder, str(tmp_path / "pictures.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    expected = runtime.predict(digits[:40].numpy())
    assert done.stdout == f"{expected.exits.tolist()} {expected.classes.tolist()}\n"


def test_it_answers_as_the_network_and_runs_a_stage_on_the_undecided_alone(
    demo: Path, runtime: Runtime, digits: Tensor
) -> None:
    network, policy = load(demo), load_policy(demo)
    assert policy is not None
    expected, found = network.predict(digits, policy), runtime.predict(digits.numpy())
    apart = found.exits != expected.exits.numpy()
    assert apart.sum() <= 1
    assert (found.classes == expected.classes.numpy())[~apart].all()
    assert np.abs(found.confidence - expected.confidence.numpy())[~apart].max() <= 1e-4
    assert found.ran == tuple(int((found.exits >= at).sum()) for at in range(3))
    assert min(found.ran) > 0
    for i in range(20):
        alone = runtime.predict(digits[i].numpy())
        assert (alone.classes[0], alone.exits[0]) == (found.classes[i], found.exits[i])
        assert alone.ran == tuple(int(found.exits[i] >= at) for at in range(3))
    assert runtime.predict(digits[:0].numpy()).ran == (0, 0, 0)


def test_a_threshold_takes_the_place_of_the_policy(exported: Export, digits: Tensor) -> None:
    first, last = Runtime(exported.folder, threshold=0.0), Runtime(exported.folder, threshold=1.0)
    assert not first.predict(digits.numpy()).exits.any()
    assert last.predict(digits.numpy()).ran[1] > 400
    assert first.description.endswith("as asked for; not calibrated")


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (np.zeros((2, 1, 9, 9), np.float32), r"got float32 of shape \[2, 1, 9, 9\]"),
        (np.zeros((2, 3, 8, 8), np.float32), r"got float32 of shape \[2, 3, 8, 8\]"),
        (np.zeros((2, 1, 8, 8), np.uint8), "got uint8"),
        (np.full((1, 8, 8), 2, np.float32), "got values from 2 to 2"),
        (np.full((1, 8, 8), np.nan, np.float32), "got values that are not numbers"),
        ([[0.0]], "got list"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(runtime: Runtime, pictures: object, said: str) -> None:
    with pytest.raises(InputError, match=f"pictures: {said}.*; accepted: "):
        runtime.predict(pictures)  # type: ignore[arg-type]


def test_cut_missing_and_foreign_files_are_told_by_name(exported: Export, tmp_path: Path) -> None:
    whole = Path(exported.folder)
    stage = (whole / "stages" / "1.onnx").read_bytes()
    for content in (b"", stage[:100], stage[: len(stage) // 2], stage[:-40], b"no graph at all"):
        folder = shutil.copytree(whole, tmp_path / f"cut{len(content)}")
        (folder / "stages" / "1.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"stages/1\.onnx: .*accepted: the file"):
            Runtime(folder)
    (folder / "stages" / "1.onnx").unlink()
    with pytest.raises(InputError, match=r"stages/1\.onnx: is missing"):
        Runtime(folder)
    with pytest.raises(InputError, match="threads: got 0; accepted: a whole number >= 1"):
        Runtime(whole, threads=0)


def test_a_missing_package_is_told_in_a_sentence(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        InputError, match=r"needs the package onnxruntime; install it with: pip install 'ramify\[export\]'"
    ):
        Runtime(exported.folder)
