"""Folders of other libraries as models: what is taken, what is refused, nothing is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import petra
from petra.core.errors import DataError
from petra.networks.sentence_encoder import POOLINGS, TokenPooling

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from test_elsewhere_docs import tiny_bert

    tiny_bert(tmp_path / "model", "BertForSequenceClassification")
    return tmp_path / "model"


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_weights_are_those_that_were_saved(folder: Path) -> None:
    theirs = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    ours = petra.pretrained(folder)
    x = petra.data.tokens(["good film", "awful plot sharp"], folder, length=8)
    x = {name: torch.from_numpy(t) for name, t in x.items()}
    assert x["input_ids"].shape == (2, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(**x).logits, theirs(**x).logits)
    assert not ours.training


def test_what_is_no_model_is_refused_by_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        petra.pretrained(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"config.json: no such file"):
        petra.pretrained(tmp_path / "empty")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="adapter, not a model"):
        petra.pretrained(tmp_path / "empty")
    for name in ("NoSuchModel", "AutoModel", "pipeline", "os.system", 3):
        edit(folder / "config.json", architectures=[name])
        with pytest.raises(DataError, match="has no model"):
            petra.pretrained(folder)


def test_no_code_and_no_pickle_in_a_folder_is_run(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path(folder / "exploded").touch, ())

    (folder / "model.safetensors").rename(folder / "kept")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"no .safetensors file"):
        petra.pretrained(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="cannot be loaded"):
        petra.pretrained(folder)
    (folder / "kept").replace(folder / "model.safetensors")
    (folder / "bomb.py").write_text(f"open({str(folder / 'exploded')!r}, 'w')")
    edit(folder / "config.json", auto_map={"AutoModel": "bomb.Bomb"})
    with pytest.raises(DataError, match="does not run"):
        petra.pretrained(folder)
    assert not (folder / "exploded").exists()


def test_a_head_that_is_not_in_the_folder_is_no_random_one(folder: Path) -> None:
    edit(folder / "config.json", architectures=["BertForTokenClassification"])
    model = petra.pretrained(folder)  # whose head has the same names and sizes
    assert isinstance(model, transformers.BertForTokenClassification)
    edit(folder / "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(DataError, match="are not in the folder, such as 'cls"):
        petra.pretrained(folder)


@pytest.mark.parametrize("mode", POOLINGS)
def test_poolings_against_loops(mode: str) -> None:
    states = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    got = TokenPooling([mode])(states, mask)
    for i in range(3):
        seen = [states[i, j] for j in range(5) if mask[i, j]]
        wanted = {
            "cls": seen[0],
            "lasttoken": seen[-1],
            "max": torch.stack(seen).amax(0),
            "mean": sum(seen) / len(seen),
            "mean_sqrt_len": sum(seen) / len(seen) ** 0.5,
            "weightedmean": sum((j + 1) * s for j, s in enumerate(seen))
            / sum(range(1, len(seen) + 1)),
        }[mode]
        torch.testing.assert_close(got[i], wanted)
    assert TokenPooling([mode, "mean"])(states, mask).shape == (3, 8)


def test_layers_behind_an_encoder(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from test_elsewhere_docs import sentences

    sentences(tmp_path)
    place = tmp_path / "my-encoder"
    dense = nn.Linear(32, 6)
    (place / "2_Dense").mkdir()
    save_file({f"linear.{k}": v for k, v in dense.state_dict().items()}, place / "2_Dense" /
              "model.safetensors")  # fmt: skip
    (place / "2_Dense" / "config.json").write_text(
        '{"activation_function": "torch.nn.modules.activation.Tanh"}'
    )
    listed = json.loads((place / "modules.json").read_text())
    listed[2] = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (place / "modules.json").write_text(json.dumps(listed))
    x = petra.data.tokens(["good film", "slow"], place, length=6)
    inputs = {name: torch.from_numpy(t) for name, t in x.items()}
    encoder = petra.pretrained(place)
    with torch.no_grad():
        states = encoder.encoder(**inputs)[0]
        mask = inputs["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(encoder(**inputs), dense(mean).tanh())
    for path, kind in (("..", "models.Dense"), ("/", "models.Pooling"), ("", "models.LSTM")):
        listed[2] = {"path": path, "type": kind}
        (place / "modules.json").write_text(json.dumps(listed))
        with pytest.raises(DataError, match=r"is no module|a layer"):
            petra.pretrained(place)


def test_texts_are_checked(folder: Path) -> None:
    tokens = petra.data.tokens
    pairs = tokens((["good film"], ["slow"]), folder, length=8)
    assert pairs["token_type_ids"].sum() == 2
    assert all(t.dtype == np.int64 and t.shape == (1, 8) for t in pairs.values())
    for texts, said in (
        ("good", "got one text"),
        ([], "there are none"),
        (["good", None], "item 1"),
        ((["good"], ["film", "slow"]), "1 first texts and 2"),
    ):
        with pytest.raises(DataError, match=said):
            tokens(texts, folder)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such folder"):
        tokens(["good"], folder / "none")
