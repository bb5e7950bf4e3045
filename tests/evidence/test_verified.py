"""`petra verify BUNDLE`: a sound one passes without its study, and any damage is noticed."""

from __future__ import annotations

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_bundles import FILES, RAW, edit, flipped, reseal
from typer.testing import CliRunner, Result

from petra.cli.main import app
from petra.core.errors import ArtifactError
from petra.measure.host import describe_host
from petra.measure.npz import read_bounded
from petra.report.bundle_check import moved, open_bundle, replay_sample


def verify(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(place: Path, said: str) -> None:
    result = verify(place)
    assert result.exit_code == 2, result.output
    assert said in result.stderr, result.stderr


def test_a_bundle_verifies_by_itself(bundle: Path) -> None:
    result = verify(bundle)
    assert result.exit_code == 0, result.stderr
    for text in (RAW, "16 sample items give", f"bundle: {len(FILES) - 1} files are as exported"):
        assert text in result.output
    data = json.loads(verify(bundle / "model.onnx", "--json").output)
    assert data["sample"]["relative_error"] == data["sample"]["other_choice"] == 0
    assert data["changed"] == {}
    assert data["preprocessing"] == RAW
    assert data["torch_loaded"] is False
    beside = bundle.with_name("other.onnx")
    (bundle / "model.onnx").rename(beside)
    assert "no bundle" in verify(beside).output
    refused(bundle, "the bundle's file is missing")


def test_a_changed_bit_in_any_file_is_noticed(bundle: Path) -> None:
    draw = random.Random(0)
    for name in sorted(FILES):
        file = bundle / name
        content = file.read_bytes()
        places = {0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(12))}
        places |= set(range(len(content))) if name == "SHA256SUMS" else set()
        for place in places:
            file.write_bytes(flipped(content, place, draw.randrange(8)))
            with pytest.raises(ArtifactError):
                open_bundle(bundle)
        file.write_bytes(content[:-1])
        with pytest.raises(ArtifactError):
            open_bundle(bundle)
        file.unlink()
        with pytest.raises(ArtifactError):
            open_bundle(bundle)
        file.write_bytes(content)
    assert open_bundle(bundle).checked == len(FILES) - 1


def test_files_beside_another_are_held_against_their_digests_too(
    shipped: Path, tmp_path: Path
) -> None:
    for file in shipped.iterdir():
        (tmp_path / f"tiny.{file.name}".replace("tiny.model", "tiny")).write_bytes(
            file.read_bytes()
        )
    names = (tmp_path / "tiny.SHA256SUMS").read_text().replace("  ", "  tiny.")
    (tmp_path / "tiny.SHA256SUMS").write_text(names.replace("tiny.model", "tiny"))
    edit(tmp_path / "tiny.metrics.json", lambda d: d["files"][0].update(name="tiny.onnx"))
    with pytest.raises(ArtifactError, match=r"tiny\.metrics\.json: not the file"):
        open_bundle(tmp_path / "tiny.onnx")


# ---- forged: every checksum fits -----------------------------------------------------------------


def other_outputs(bundle: Path) -> None:
    outputs = dict(np.load(bundle / "sample_outputs.npz"))
    np.savez(bundle / "sample_outputs.npz", **{k: v + v.std() for k, v in outputs.items()})


def other_weights(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 1), tensor.name))
    onnx.save(model, str(bundle / "model.onnx"))


def no_outputs(bundle: Path) -> None:
    np.savez(bundle / "sample_outputs.npz", something_else=np.zeros(3))


def objects(bundle: Path) -> None:
    with zipfile.ZipFile(bundle / "sample_outputs.npz", "w") as archive:
        archive.writestr("output.npy", pickle.dumps({"a": 1}))


def pickled(bundle: Path) -> None:
    array = np.array([{"a": 1}], dtype=object)
    np.savez(bundle / "sample_inputs.npz", input=array, allow_pickle=True)


def bomb(bundle: Path) -> None:
    """A header that announces a terabyte, and a few bytes that would become it."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (262144, 1048576), }"
    head += b" " * (117 - len(head)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(1 << 20)
    with zipfile.ZipFile(bundle / "sample_outputs.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("output.npy", content)


def links(bundle: Path) -> None:
    target = bundle.with_name("elsewhere.npz")
    (bundle / "sample_outputs.npz").rename(target)
    (bundle / "sample_outputs.npz").symlink_to(target)


def wide_tolerance(bundle: Path) -> None:
    other_outputs(bundle)
    edit(bundle / "evidence.json", lambda d: d["sample"].update(tolerance=1e9))


def odd_tolerance(bundle: Path) -> None:
    edit(bundle / "evidence.json", lambda d: d["sample"].update(tolerance="much"))


def odd_runtime(bundle: Path) -> None:
    edit(bundle / "evidence.json", lambda d: d["run_as"].update(device=["cpu"]))


FORGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "other outputs": (other_outputs, "more than is allowed"),
    "other weights": (other_weights, "more than is allowed"),
    "no outputs": (no_outputs, "recorded are"),
    "objects": (objects, "cannot be read as an .npz file"),
    "a pickle": (pickled, "cannot be read as an .npz file"),
    "a bomb": (bomb, "bytes of arrays"),
    "a link": (links, "leads out"),
    "a wide tolerance": (wide_tolerance, "more than is allowed"),
    "an odd tolerance": (odd_tolerance, "its sample cannot be read"),
    "an odd runtime": (odd_runtime, "how it was run cannot be read"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_bundle_does_not_pass(bundle: Path, name: str) -> None:
    harm, said = FORGED[name]
    harm(bundle)
    reseal(bundle)
    refused(bundle, said)


@pytest.mark.parametrize(
    "line",
    [
        "{sum}  ../elsewhere",
        "{sum}  /etc/hostname",
        "{sum}  pipe",
        "{sum}  link",
        "{sum} model.onnx",
        "{sum}  a\x1b[31mb",
        "nonsense",
        "{sum}  model.onnx",  # twice
    ],
)
def test_sums_name_files_of_the_bundle(bundle: Path, line: str) -> None:
    (bundle.parent / "elsewhere").write_text("secret")
    (bundle / "link").symlink_to("../elsewhere")
    os.mkfifo(bundle / "pipe")
    sums = bundle / "SHA256SUMS"
    sums.write_text(sums.read_text() + line.format(sum="0" * 64) + "\n")
    with pytest.raises(ArtifactError) as refusal:
        open_bundle(bundle)
    assert "secret" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)


def test_bounded_reading(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array([True])}
    np.savez(tmp_path / "x.npz", **arrays)
    found = read_bounded(tmp_path / "x.npz")
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros(10**6))
    with pytest.raises(ArtifactError, match="more than 100000 bytes of arrays"):
        read_bounded(tmp_path / "large.npz", most_bytes=100_000)
    with pytest.raises(ArtifactError, match="it has more than 20 bytes"):
        read_bounded(tmp_path / "x.npz", most_bytes=10)
    with pytest.raises(ArtifactError, match="no such file"):
        read_bounded(tmp_path / "none.npz")


# ---- older bundles, and what changed -------------------------------------------------------------


def test_a_bundle_of_an_older_petra_verifies(bundle: Path) -> None:
    for name in ("evidence.json", "SHA256SUMS", "sample_inputs.npz", "sample_outputs.npz"):
        (bundle / name).unlink()
    edit(bundle / "metrics.json", lambda d: d.pop("sums"))
    result = verify(bundle / "model.onnx")
    assert result.exit_code == 0, result.stderr
    assert "no sample is in the bundle" in result.output
    assert "preprocessing: not stated" in result.output
    assert replay_sample(open_bundle(bundle)) is None


def test_what_changed_since_is_said(bundle: Path) -> None:
    def older(metrics: dict[str, object]) -> None:
        host = metrics["host"]
        assert isinstance(host, dict)
        host["versions"]["onnxruntime"] = "1.0.0"
        host["cpu"] = "another \x1b[31m processor"

    edit(bundle / "metrics.json", older)
    reseal(bundle)
    result = verify(bundle)
    assert result.exit_code == 0, result.stderr
    assert "onnxruntime 1.0.0 -> " in result.output
    assert "\x1b" not in result.output
    now = describe_host()
    assert moved(now, now) == {} == moved({}, now)
    assert moved(now, {**now, "python": "4.0"})["python"][1] == "4.0"


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path, "no bundle")
    refused(tmp_path / "nothing.onnx", "no such file")
