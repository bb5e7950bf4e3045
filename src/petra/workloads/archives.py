"""The sets of the archives: where they lie, and what others report, from the sources named.

Figures were read from tables in the repositories named, or in copies of the papers' tables; those
marked `RECALLED` are quoted from memory. Single networks, like those here, do somewhat worse than
ensembles of them; and here a part of the training series is set aside for validation, where theirs
train on all.
"""

from __future__ import annotations

from collections.abc import Mapping

from petra.workloads.workload import Published

NONE = "no published figure for this form: "
RECALLED = "; quoted from memory, not looked up"

_INCEPTION = (
    "Ismail Fawaz et al. 2020 (github.com/hfawaz/InceptionTime): single networks, five together"
)
_KARIM = "Karim et al. 2018 (github.com/titu1994/LSTM-FCN): with attention, without"
_OLDER = "; of the archive of 2015"
_TSML = (
    "Guijo-Rubio et al. 2024 (github.com/time-series-machine-learning/tsml-eval): a network, least"
    " and greatest of the official split and 29 others of the same series"
)
_REBUILT = "; the set here is rebuilt from its raw data"

UCR: Mapping[str, Published] = {
    name: Published(min(figures), max(figures), _INCEPTION)
    for name, figures in {
        "GunPoint": (1.0, 1.0),
        "ItalyPowerDemand": (0.9553, 0.9689),
        "SyntheticControl": (0.9933, 0.9967),
        "ECG5000": (0.9369, 0.9409),
        "FaceAll": (0.7964, 0.8071),
        "Wafer": (0.9982, 0.9985),
        "ElectricDevices": (0.7021, 0.7239),
        "Crop": (0.7532, 0.7722),
    }.items()
}
LSTM_FCN: Mapping[str, Published | None] = {
    **{
        name: Published(min(figures), max(figures), _KARIM + _OLDER)
        for name, figures in {
            "GunPoint": (1.0, 1.0),
            "ItalyPowerDemand": (0.9592, 0.9621),
            "SyntheticControl": (0.9833, 0.9867),
            "ECG5000": (0.9396, 0.9433),
            "FaceAll": (0.9219, 0.9302),
            "Wafer": (0.9976, 0.9981),
            "ElectricDevices": (0.7332, 0.7467),
        }.items()
    },
    "Crop": None,  # not in that archive
}
TSER_FILES: Mapping[str, str] = {
    "AppliancesEnergy": "tser/AppliancesEnergy_rebuilt.npz",
    "BeijingPM25": "tser/BeijingPM25_rebuilt.npz",
    "FloodModeling1": "tser/FloodModeling1.npz",
    "Tecator": "tser/Tecator.npz",
    "Covid3Month": "tser/Covid3Month.npz",
}
TSER: Mapping[str, Published] = {
    "AppliancesEnergy": Published(3.23, 5.36, _TSML + _REBUILT),
    "BeijingPM25": Published(38.1, 61.7, _TSML + ", 61.7 on the official one" + _REBUILT),
    "FloodModeling1": Published(0.0061, 0.0220, _TSML),
    "Tecator": Published(
        0.36,
        0.65,
        NONE
        + "networks on principal components of the spectra, another split (Borggaard & Thodberg"
        " 1992, Thodberg 1996, as the data's description has them)",
    ),
    "Covid3Month": Published(0.0360, 0.2000, _TSML),
}

_MINILM = "MiniLM-L6-H384 (github.com/microsoft/unilm, minilm)"
GLUE: Mapping[str, Published] = {
    "sst2": Published(
        0.9055, 0.915,
        "MiniLM-L12 on 6,920 sentences (Hugging Face, SetFit/MiniLM-L12-H384-uncased__sst2__all-"
        f"train, the best of its epochs), and {_MINILM} on all",
    ),
    "mrpc": Published(
        0.875, 0.889,
        f"DistilBERT (Sanh et al. 2019), {_MINILM}; development set, and perhaps F1, which they do"
        " not say",
    ),
    "rte": Published(0.599, 0.688, f"DistilBERT (Sanh et al. 2019), {_MINILM}"),
    "stsb": Published(0.869, 0.890, "DistilBERT and BERT-base (Sanh et al. 2019)"),
    "cola": Published(0.475, 0.513, f"{_MINILM}, DistilBERT (Sanh et al. 2019)"),
}  # fmt: skip
