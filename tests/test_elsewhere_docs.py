"""The snippets of docs/elsewhere.md, run as they stand on files of the names that they use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.execute.apply import apply_pipeline
from petra.intake import examine
from petra.methods.base import Context
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.tasks.inputs import call, named, prediction

DOCUMENT = Path(__file__).parents[1] / "docs" / "elsewhere.md"
N = 60
WORDS = ["good", "bad", "great", "awful", "film", "plot", "play", "cast", "slow", "sharp"]


def snippets() -> dict[str, str]:
    """The Python of every section by its title."""
    found = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        if code := re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            found[title] = "".join(code)
    return found


def sentence(i: int) -> str:
    return " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 4 + i % 3))


def tiny_bert(folder: Path, kind: str) -> None:
    """A small BERT of random weights and its tokenizer, as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)


def sensors(folder: Path) -> None:
    random = np.random.default_rng(0)
    readings = random.normal(size=(N, 8)).astype(np.float32)
    np.savez(folder / "sensors.npz", readings=readings, place=readings.sum(1))


def reviews(folder: Path) -> None:
    tiny_bert(folder / "my-classifier", "BertForSequenceClassification")
    lines = ["text,liked", *(f"{sentence(i)},{['no', 'yes'][i % 2]}" for i in range(N))]
    (folder / "reviews.csv").write_text("\n".join(lines))


def sentences(folder: Path) -> None:
    place = folder / "my-encoder"
    tiny_bert(place, "BertModel")
    (place / "modules.json").write_text(
        '[{"path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},'
        ' {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]'
    )
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "corpus.csv").write_text("\n".join(["text", *map(sentence, range(N))]))
    for name in ("val.csv", "test.csv"):
        rows = [f"{sentence(i)},{sentence(3 * i)},{i % 6}" for i in range(20)]
        (folder / name).write_text("\n".join(["first,second,score", *rows]))


def flowers(folder: Path) -> None:
    pytest.importorskip("timm")
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for i in range(N):
        place = folder / "flowers" / ["daisy", "rose"][i % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            place / f"{i}.png"
        )


FILES: dict[str, Callable[[Path], None]] = {
    "NumPy and pandas": sensors,
    "A Hugging Face classifier": reviews,
    "A sentence encoder": sentences,
    "timm": flowers,
}
LIGHTNING = "Lightning"  # needs a checkpoint, which tests do not unpickle


def run(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    FILES[title](folder)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippets()[title], title, "exec"), names)  # noqa: S102 - ours
    return names


def test_every_snippet_is_run() -> None:
    assert set(snippets()) == {*FILES, LIGHTNING}


@pytest.mark.parametrize("title", FILES)
def test_a_snippet_makes_what_petra_takes_and_ships(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run(title, tmp_path, monkeypatch)
    model = names.get("model") or names.get("encoder") or nn.Linear(8, 1)
    task = names["task"]
    intake = examine(model.eval(), task)
    inputs = task.example(3)
    with torch.no_grad():
        expected = prediction(call(model, inputs))
    (path,) = OnnxRuntime().export(model, inputs, tmp_path / "m.onnx", intake.interface)
    got = OnnxRuntime().load(path).run({k: t.numpy() for k, t in named(inputs).items()})
    np.testing.assert_allclose(next(iter(got.values())), expected, atol=1e-5)


def test_a_sentence_encoder_is_distilled_and_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run("A sentence encoder", tmp_path, monkeypatch)
    encoder, task = names["encoder"], names["task"]
    made, _ = apply_pipeline(
        encoder,
        Pipeline((StageSpec("tune", {"epochs": 1}), StageSpec("quantize.dynamic"))),
        lambda prefix: Context(task=task, teacher=encoder, seed=0),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    vectors = prediction(call(made, task.example(4)))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4), atol=1e-3, rtol=1e-3)
