"""The kinds of models that `petra init` knows, and the study file that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from string import Template

MODULE = "my_model"  # the module's name, which the study file has, too


@dataclass(frozen=True)
class Starter:
    """A kind of model and data. `constraint` is one that its quality may be given; `extra` is what
    has to be installed for it, '' for nothing.
    """

    name: str
    about: str
    constraint: str = "quality >= baseline - 0.02"
    extra: str = ""

    def module(self) -> str:
        """The Python module, as it is in `petra.cli.starters`."""
        return (files("petra.cli.starters") / f"{self.name}.py").read_text(encoding="utf-8")

    def study(self, *, directory: str, runtime: str, time: str) -> str:
        """The study file, with the places filled in."""
        return _STUDY.substitute(
            about=self.about,
            constraint=self.constraint,
            directory=directory,
            runtime=runtime,
            time=time,
            module=MODULE,
        )


_ERROR = "quality <= 1.05 * baseline"  # the quality is an error: less is better

STARTERS: Mapping[str, Starter] = {
    starter.name: starter
    for starter in (
        Starter("cnn", "a convolutional network, images, classification"),
        Starter("recurrent", "a GRU, series, classification"),
        Starter("transformer", "a transformer, sequences of tokens, classification"),
        Starter("hf", "a Hugging Face model, text, classification", extra="text"),
        Starter("regression", "any network, numbers to predict", _ERROR),
        Starter("forecast", "any network, the next steps of series", _ERROR),
        Starter("events", "any network, sequences of events of any length, classification"),
    )
}

_STUDY = Template("""\
# A study of petra: $about.
#
#   petra run $directory/study.yaml --time "1 min"    # a first look
#   petra run $directory/study.yaml                   # for as long as is said below; again: goes on
#   petra show $directory/results                     # the models found
#   petra report $directory/results                   # the same as a page
#   petra export $directory/results --pick knee       # a file to ship
#
# All keys: docs/study-file.md. Which method when: petra methods --guide.

# Functions of $module.py beside this file: put your own model and data there.
model: $module:model
task: $module:task

# What runs the file that ships: onnxruntime, openvino, torch, torch.compile or litert.
target:
  runtime: $runtime
  threads: 1
  batch: 1                  # items of a call, for latency

# What is traded for what. `quality` is the task's metric; others: latency_ms, params, macs, memory.
objectives: [quality, latency, size]

# What has to hold, alone or relative to the untouched model.
constraints:
  - $constraint
# - size <= 100 kB
# - latency <= 0.5

budget:
  time: $time               # or trials: 50, or both: whichever comes first

# Left alone, the search is over all methods that can treat the model.
# space:
#   stages: [prune.structured, distill, quantize.static]

workdir: $directory/results # where everything is kept
""")
