"""Options and arguments shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from retrieval.encoders.engines.choose import ENGINE
from retrieval.encoders.engines.device import DEVICE
from retrieval.stores.servers.open import STORE

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="an artifact's folder", show_default=False)]
AnyArtifact = Annotated[
    str,
    typer.Argument(metavar="DIR", help="an artifact: its folder, or owner/name[@revision] on the Hub"),
]
Sha256 = Annotated[
    str | None,
    typer.Option("--sha256", metavar="HASH", help="open only the artifact with this manifest_sha256"),
]


def _use_engine(name: str | None) -> str | None:
    if name is not None:
        os.environ[ENGINE] = name  # the processes that a server starts take it too
    return name


def _use_device(name: str | None) -> str | None:
    if name is not None:
        os.environ[DEVICE] = name
    return name


def _use_store(uri: str | None) -> str | None:
    if uri is not None:
        os.environ[STORE] = uri
    return uri


Engine = Annotated[
    Literal["onnx", "openvino", "torch"] | None,
    typer.Option(
        "--engine",
        envvar=ENGINE,
        callback=_use_engine,
        help="what runs the encoder (default: onnx if the artifact has the exported network, and no GPU; else torch)",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option(
        "--device",
        envvar=DEVICE,
        callback=_use_device,
        help="where the encoder computes (default: auto, a CUDA GPU if torch sees one, else the processor)",
    ),
]
StoreAt = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        envvar=STORE,
        callback=_use_store,
        help="the vector database to search in, which `index DIR --to URI` has filled (default: DIR's own index)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        envvar="LOOKALIKE_ALLOWED_HOST",
        help="answer to this host name too, as search.example.org behind a proxy; * for any; may be repeated",
    ),
]
AllowedOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-origin",
        metavar="ORIGIN",
        envvar="LOOKALIKE_ALLOWED_ORIGIN",
        help="let pages of this site use the server, as https://shop.example; * for any; may be repeated",
    ),
]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        metavar="ADDRESS",
        envvar="LOOKALIKE_TRUSTED_PROXY",
        help="believe this proxy, or network of proxies, who its visitors are (X-Forwarded-For); may be repeated",
    ),
]
QueueSize = Annotated[
    int, typer.Option(metavar="N", min=1, help="searches that may wait; one more is told to try again later")
]
VisitorSearches = Annotated[
    int, typer.Option(metavar="N", min=1, help="searches that one address may have waiting or running")
]
VisitorRate = Annotated[
    float, typer.Option(metavar="N", min=0.01, help="requests a second, other than to read, from one address")
]
Auth = Annotated[
    str | None,
    typer.Option(
        metavar="USER:PASSWORD|FILE",
        envvar="LOOKALIKE_AUTH",
        help="ask for a password; FILE has a line USER:PASSWORD for each user",
    ),
]
Private = Annotated[bool, typer.Option("--private", help="make it private: visible only to those with access")]

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="a folder, a list (CSV, TSV, JSONL), an archive, a parquet file, or a dataset's folder or Hub name",
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(metavar="C", help="the image column (default: the first column that contains images, or is named so)"),
]
LabelColumn = Annotated[str | None, typer.Option(metavar="C", help="the label column (default: label)")]
LabelLevel = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="the folder that is the label, counted from SOURCE (default: the innermost)"),
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="also fetch addresses in private networks, such as localhost")
]
Split = Annotated[
    str | None, typer.Option(metavar="S", help="one split, or several as train+validation (default: all)")
]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="the dataset's configuration, if it has several")]
Revision = Annotated[
    str | None,
    typer.Option(metavar="REV", help="branch, tag or commit on the Hub (default: main); the same as SOURCE@REV"),
]
Originals = Annotated[
    bool, typer.Option("--originals", help="keep where each original lies, for `serve --originals` and links to them")
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="embed only part I of N, from 0 to N-1, into DIR; `merge` makes the artifact of all parts"
    ),
]
KeepDrawn = Annotated[
    Path | None,
    typer.Option("--keep", metavar="OUT", help="with --rows, write an artifact of these, and serve it (Linux)"),
]
DrawnRows = Annotated[
    int | None, typer.Option("--rows", metavar="N", min=1, help="instead, search N vectors drawn around the artifact's")
]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="URI", help="compare vector databases on N vectors drawn (200,000); repeatable"),
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="embed on a Ray cluster: auto, ray://HOST:10001, or local"),
]
RayWorkers = Annotated[
    int | None,
    typer.Option("--ray-workers", metavar="N", min=1, help="workers of it (default: one a machine or GPU)"),
]
Parts = Annotated[
    int | None, typer.Option("--parts", metavar="N", min=1, help="with --ray: parts of the source (default: 32)")
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="stop after N images")]
WhereConditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="filter, such as 'colour=red', 'colour!=red', 'price<=50'; may be repeated (docs/filters.md)",
    ),
]

# Only for commands that change an artifact.
Out = Annotated[Path, typer.Option(metavar="DIR", help="the artifact's folder")]
Backbone = Annotated[str, typer.Option(metavar="M", help="a preset (see `encoders`), or any timm model")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a local safetensors file instead of the Hub's weights")
]
WeightsLicense = Annotated[
    str | None,
    typer.Option(metavar="ID", help="licence of the weights in that file, as named on the Hub, for the card"),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="side of the pictures that the network gets, in pixels (default: the model's own)"),
]
CropMode = Annotated[
    Literal["squash", "center"],
    typer.Option(help="squash: resize the whole picture to a square; center: crop as in the model's own evaluation"),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        metavar="ID",
        help="licence of the images, as named on the Hub, e.g. cc-by-4.0 (default: what the source states)",
    ),
]
NoPretrained = Annotated[bool, typer.Option("--no-pretrained", help="use random weights")]
Precision = Annotated[
    Literal["float32", "int8"], typer.Option(help="int8: quantize the encoder on the images; several times as fast")
]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="with int8: build even if mAP falls by more than 0.005")
]
Index = Annotated[
    str, typer.Option(metavar="SPEC", help="a FAISS factory string; AUTO: chosen by the number of images")
]
TextModel = Annotated[
    str | None,
    typer.Option(metavar="M", help="a CLIP or SigLIP model for search by words: its name on the Hub, or a folder"),
]
TextModelLicense = Annotated[
    str | None,
    typer.Option(metavar="ID", help="licence of the text model's weights, if its page on the Hub does not state it"),
]
MapMethod = Annotated[
    Literal["pca", "tsne", "umap"] | None,
    typer.Option("--map", help="store a map of the gallery (default: the page computes one with PCA)"),
]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="SOURCE", help="source of an image, as printed by search; may be repeated"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="list what would change, and change nothing")]
Force = Annotated[bool, typer.Option("--force", help="replace the artifact that is already in DIR")]
