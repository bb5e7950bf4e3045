"""What ships with a file says how to feed it, what comes out, and on which data that was seen."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from small_bundles import CLASSES, FILES, RAW, digits

import petra
from petra.core.errors import ConfigError
from petra.core.meaning import Meaning
from petra.intake import meaning_of
from petra.measure.evidence import observed, split_digest
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.store.kept_files import FILES as FILES_NOTE
from petra.store.store import Store

DOCUMENT = Path(__file__).parents[2] / "docs" / "bundles.md"


def test_a_bundle_is_whole_and_everything_in_it_has_a_digest(shipped: Path) -> None:
    assert {file.name for file in shipped.iterdir()} == FILES
    listed = dict(
        reversed(line.split("  ")) for line in (shipped / "SHA256SUMS").read_text().splitlines()
    )
    assert set(listed) == FILES - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((shipped / name).read_bytes()).hexdigest() == digest


def test_the_sample_is_what_the_file_returns_for_it(study: Path, shipped: Path) -> None:
    inputs = dict(np.load(shipped / "sample_inputs.npz", allow_pickle=False))
    outputs = dict(np.load(shipped / "sample_outputs.npz", allow_pickle=False))
    session = onnxruntime.InferenceSession(str(shipped / "model.onnx"))
    names = [output.name for output in session.get_outputs()]
    assert list(outputs) == names
    for got, wanted in zip(session.run(None, inputs), outputs.values(), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    stored = np.load(study / "data" / "val" / "input.npy")
    np.testing.assert_array_equal(inputs["input"], stored[:16])


def test_it_says_what_inputs_and_outputs_are(study: Path, shipped: Path) -> None:
    told = json.loads((shipped / "evidence.json").read_text())
    assert told["preprocessing"] == RAW
    assert "means" in told["inside"][0]
    assert told["classes"] == CLASSES
    (taken,) = told["inputs_in_words"]
    assert "free: batch (any size)" in taken
    assert "fixed: axis 1 (64); no other size runs" in taken
    (returned,) = told["outputs_in_words"]
    assert "no probabilities" in returned
    assert "digit 0, digit 1" in returned
    stored = np.load(study / "data" / "val" / "input.npy")
    seen = told["observed"]["inputs"]["input"]
    assert (seen["least"], seen["most"]) == (stored.min(), stored.max())
    assert seen["mean"] == pytest.approx(stored.mean(dtype=float))
    assert seen["deviation"] == pytest.approx(stored.std(dtype=float))
    assert told["run_as"]["threads"] == 1
    assert {name: part["items"] for name, part in told["data"].items()} == {"val": 300, "test": 300}
    assert told["data"]["val"]["sha256"] != told["data"]["test"]["sha256"]


def test_the_digest_of_a_split_is_that_of_what_sha256sum_prints(study: Path) -> None:
    data = study / "data"
    names = ["val.targets.npy", "val/input.npy"]
    lines = [f"{hashlib.sha256((data / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert split_digest(data, "val") == {"items": 300, "sha256": digest}


def test_the_card_tells_it_too_and_its_snippet_has_the_threads(shipped: Path) -> None:
    card = (shipped / "MODEL_CARD.md").read_text()
    for text in (
        RAW,
        "no probabilities",
        "no other size runs",
        "sample_inputs.npz",
        "validation: 300 items",
    ):
        assert text in card
    snippet = card.partition("```python\n")[2].partition("\n```")[0]
    assert "intra_op_num_threads = 1" in snippet
    sample = 'outputs = session.run(None, dict(np.load("sample_inputs.npz")))'
    code = f"{snippet}\n{sample}\nprint(np.abs(outputs[0] - WANTED).max() < 1e-4)"
    wanted = 'np.load("sample_outputs.npz")["output"]'
    done = subprocess.run(
        [sys.executable, "-c", code.replace("WANTED", wanted)],
        cwd=shipped,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr


def test_what_nobody_said_is_not_stated_and_a_warning(study: Path, tmp_path: Path) -> None:
    member = StudyFront.load(study).pick("smallest")
    with pytest.warns(UserWarning, match="preprocessing is not stated"):
        path = member.export(tmp_path / "model.onnx", sample=0)
    told = json.loads((tmp_path / "model.evidence.json").read_text())
    assert told["preprocessing"] == "not stated"
    assert told["sample"] is None
    assert not list(tmp_path.glob("*.npz"))
    assert "before the file: not stated" in (tmp_path / "model.MODEL_CARD.md").read_text()
    assert path.is_file()
    for wrong in ({"sample": -1}, {"sample": True}, {"preprocessing": "x" * 20_000}):
        with pytest.raises(ConfigError):
            member.export(tmp_path / "out", **wrong)  # type: ignore[arg-type]


def test_what_the_task_says_goes_with_every_file() -> None:
    model, task = digits(preprocessing="  pixels\n / 16 ", meaning="which digit it is")
    meaning = meaning_of(model, task)
    assert (meaning.preprocessing, meaning.output) == ("pixels / 16", "which digit it is")
    assert meaning.scores
    assert Meaning.from_dict(json.loads(json.dumps(meaning.as_dict()))) == meaning
    x, y = torch.zeros(4, 2), torch.tensor([1.0, 2.0, 3.0, 4.0])
    task = petra.regression((x, y), (x, y), (x, y), meaning="price in 1,000 euros")
    rescaled = petra.Rescaled.fit(torch.nn.Linear(2, 1), y)
    told = meaning_of(rescaled, task)
    assert told.output == "price in 1,000 euros"
    assert "plus 2.5" in told.inside[0]
    with pytest.raises(ConfigError, match="preprocessing: got 3"):
        petra.regression((x, y), (x, y), (x, y), preprocessing=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"preprocessing": 1, "inside": [], "output": "", "classes": [], "scores": False},
        {"preprocessing": "", "inside": "x", "output": "", "classes": [], "scores": False},
        {"preprocessing": "", "inside": [], "output": "", "classes": [None], "scores": False},
        {"preprocessing": "x" * 20_000, "inside": [], "output": "", "classes": [], "scores": True},
    ],
)
def test_a_strange_meaning_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"mean|texts"):
        Meaning.from_dict(plain)


def test_what_is_observed_is_what_numpy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    monkeypatch.setattr("petra.measure.evidence._CHUNK", 50)
    for shape in [(1,), (7,), (33, 4), (20, 3, 5)]:
        array = random.normal(1e6, 2.0, shape)
        array.reshape(-1)[:: max(2, array.size // 3)] = np.nan
        seen, finite = observed(array), array[np.isfinite(array)]
        if not finite.size:
            assert seen == {"missing": 1.0}
            continue
        assert (seen["least"], seen["most"]) == (finite.min(), finite.max())
        assert seen["mean"] == pytest.approx(finite.mean())
        assert seen["deviation"] == pytest.approx(finite.std(), abs=1e-6)
        assert seen["missing"] == pytest.approx(np.isnan(array).mean())
    assert observed(np.array(["a"])) == observed(np.zeros((0, 3))) == {}


def test_the_page_on_bundles_says_it_as_it_is_said() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    pair = torch.zeros(4, 500), torch.tensor([0, 1, 0, 1])
    names = {"petra": petra, "train": pair, "val": pair, "test": pair}
    exec(compile(code, DOCUMENT.name, "exec"), names)  # noqa: S102 - ours
    assert names["task"].class_names() == ("ham", "spam")  # type: ignore[attr-defined]
    assert names["value"].meaning == "price in 1,000 euros"  # type: ignore[attr-defined]


def test_a_study_knows_its_members_files(study: Path) -> None:
    record = StudyRecord.load(study)
    with Store.open(study, write=False) as store:
        assert set(store.note(FILES_NOTE)) == {str(number) for number in record.digests}
    for number, files in record.digests.items():
        place = study / "artifacts" / f"{number:05d}"
        for name, digest in files.items():
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
