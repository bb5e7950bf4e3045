"""The table of workloads: reference problems, functions that return a trained model and task."""

from __future__ import annotations

from petra.core.registry import Registry
from petra.workloads.archives import GLUE, LSTM_FCN, NONE, RECALLED, TSER, TSER_FILES, UCR
from petra.workloads.workload import Published, Workload

SERIES, EVENTS, TEXT, IMAGES = "time series", "event sequences", "text", "images"

_UCR = tuple(
    Workload(
        f"ucr/{name}" + ("/lstm_fcn" if network == "lstm_fcn" else ""),
        "petra.workloads.ucr:ucr",
        SERIES,
        f"{title}, classification",
        args={"name": name, "network": network},
        files=(f"ucr/{name}.npz",),
        published=published,
        kept=f"ucr-{name}-{network}",
    )
    for network, title, figures in (
        ("inception_time", "InceptionTime", UCR),
        ("lstm_fcn", "LSTM-FCN", LSTM_FCN),
    )
    for name, published in figures.items()
)
_TSER = tuple(
    Workload(
        f"tser/{name}",
        "petra.workloads.tser:tser",
        SERIES,
        "InceptionTime, regression",
        args={"name": name},
        files=(TSER_FILES[name],),
        metric="rmse",
        maximize=False,
        published=published,
        kept=f"tser-{name}-inception_time",
    )
    for name, published in TSER.items()
)
_GLUE = tuple(
    Workload(
        f"glue/{task}",
        "petra.workloads.glue:glue",
        TEXT,
        f"MiniLM-L6, {about}",
        args={"task": task, **args},
        files=(f"glue/{folder}/train.tsv.gz", f"glue/{folder}/{test}.tsv.gz"),
        metric=metric,
        published=GLUE[task],
        kept=f"minilm-{task}",
    )
    for task, folder, test, metric, about, args in (
        (
            "sst2", "SST-2", "dev", "accuracy", "classification",
            {"train_items": None},
        ),
        (
            "mrpc", "MRPC", "test", "accuracy", "sentence pairs",
            {"epochs": 4, "lr": 5e-5, "metrics": ["f1"]},
        ),
        (
            "rte", "RTE", "dev", "accuracy", "sentence pairs",
            {"epochs": 6, "lr": 5e-5, "length": 128},
        ),
        (
            "stsb", "STS-B", "dev", "pearson", "regression of sentence pairs",
            {"epochs": 4, "lr": 5e-5, "metric": "pearson", "metrics": ["spearman", "rmse"]},
        ),
        (
            "cola", "CoLA", "dev", "matthews", "classification",
            {"epochs": 4, "lr": 5e-5, "length": 32, "metric": "matthews", "metrics": ["accuracy"]},
        ),
    )
)  # fmt: skip

PROBLEMS: tuple[Workload, ...] = (
    Workload("digits", "petra.workloads.digits:digits", IMAGES, "a small network, classification"),
    *(
        Workload(
            "cifar10" if model == "resnet20" else f"cifar10/{model}",
            "petra.workloads.cifar10:cifar10",
            IMAGES,
            f"{title}, classification",
            args={} if model == "resnet20" else {"model": model},
            files=("cifar10", f"weights/{file}.pt"),
            published=published,
        )
        for model, title, file, published in (
            (
                "resnet20", "ResNet-20", "resnet20",
                Published(0.9125, 0.9125, "He et al. 2016, table 6; all test images" + RECALLED),
            ),
            (
                "resnet56", "ResNet-56", "resnet56",
                Published(0.9303, 0.9303, "He et al. 2016, table 6; all test images" + RECALLED),
            ),
            (
                "resnet8", "ResNet-8", "mlperf_tiny_resnet8",
                Published(
                    0.85, 0.872, "Banbury et al. 2021 (MLPerf Tiny): target, and reached" + RECALLED
                ),
            ),
        )
    ),
    *_UCR,
    *_TSER,
    Workload(
        "etth1",
        "petra.workloads.etth1:etth1",
        SERIES,
        "PatchTST, 96 steps ahead",
        files=("forecasting/ETTh1.csv.gz",),
        metric="rmse",
        maximize=False,
        published=Published(
            0.608, 0.643,
            "roots of the mean squared errors .370 (Nie et al. 2023, table 3, 512 steps of context)"
            " and .414 (Liu et al. 2024, iTransformer, 96 steps) of PatchTST",
        ),
        kept="etth1-patch_transformer",
    ),
    Workload(
        "credit",
        "petra.workloads.credit:credit",
        EVENTS,
        "event transformer, classification",
        files=("event_sequences/uci_credit_default.npz",),
        metric="roc_auc",
        published=Published(
            0.72, 0.77,
            "Yeh & Lien 2009: ratios of the area under the lift curve, which are 2 AUC - 1, of .44"
            " (logistic regression) and .54 (neural network); another split" + RECALLED,
        ),
        kept="credit-transformer",
    ),
    Workload(
        "berka",
        "petra.workloads.berka:berka",
        EVENTS,
        "event GRU, classification",
        files=("event_sequences/berka_loans_discretised.npz",),
        metric="roc_auc",
        published=Published(
            0.82,
            0.82,
            NONE + "logistic regression on histograms, 5 folds, by those who prepared the file",
        ),
        kept="berka-gru",
    ),
    Workload(
        "bpi2012",
        "petra.workloads.bpi2012:bpi2012",
        EVENTS,
        "event GRU, next activity",
        files=("event_sequences/bpi2012_loan_workitems.npz",),
        published=Published(
            0.719, 0.760,
            "BPI'12 W in Tax et al. 2017: Breuker et al. 2016 and their LSTM; two thirds of the"
            " cases for training" + RECALLED,
        ),
        kept="bpi2012-gru",
    ),
    *_GLUE,
    Workload(
        "sst2",
        "petra.workloads.glue:sst2",
        TEXT,
        "MiniLM-L6 on 16,384 sentences, classification",
        args={"train_items": 16384},
        files=("glue/SST-2/train.tsv.gz", "glue/SST-2/dev.tsv.gz"),
        published=GLUE["sst2"],
        kept="minilm-sst2",
    ),
)  # fmt: skip
"""All of them, each as it is run without arguments."""

FAMILIES = tuple(
    Workload(name, f"petra.workloads.{name}:{name}", domain, about)
    for name, domain, about in (
        ("ucr", SERIES, "a set of the UCR archive by `name`, `network`"),
        ("tser", SERIES, "a set of the extrinsic regression archive by `name`"),
        ("glue", TEXT, "a GLUE task by `task`"),
    )
)
"""Functions of several problems, which their arguments tell apart."""

WORKLOADS: Registry[Workload] = Registry("workload", {w.name: w for w in (*PROBLEMS, *FAMILIES)})
