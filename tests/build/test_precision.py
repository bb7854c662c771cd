"""int8: built on request, with vectors of its own, which are never mixed with those of float32."""

import json
import shutil

import numpy as np
import pytest
import timm
from conftest import python

from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact, embed, work_folder
from retrieval.build.change import add_images, export_encoder
from retrieval.build.precision.calibration import calibration_pixels
from retrieval.build.precision.comparison import check_loss
from retrieval.encoders.engines.choose import ENGINE
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError, IntegrityError, PrecisionError, SourceError
from retrieval.images.open import open_image
from retrieval.sources.open import open_source


@pytest.fixture(scope="module")
def in_int8(pictures, encoder, tmp_path_factory):
    """The folder of an artifact in int8 of ONNX Runtime. Read-only."""
    folder = tmp_path_factory.mktemp("int8") / "artifact"
    source = open_source(str(pictures))
    build_artifact(source, folder, Encoder.of(encoder.model), limit=40, precision="int8", accept_loss=True)
    return folder


def vectors_of(artifact):
    return artifact.store.vectors(np.arange(len(artifact.gallery)))


def images_of(artifact, count=8):
    return [open_image(artifact.gallery.thumbnail(row)) for row in range(count)]


def test_int8_artifact_says_so_and_gives_vectors_of_its_own(in_int8, encoder, artifact):
    loaded, float32 = load_artifact(in_int8), load_artifact(artifact)
    assert loaded.encoder.precision == loaded.manifest["encoder"]["precision"] == "int8"
    assert loaded.encoder.engine.name == "onnx"
    assert "precision" not in float32.manifest["encoder"]
    assert loaded.encoder.fingerprint != encoder.fingerprint
    ours, theirs = vectors_of(loaded), vectors_of(float32)[: len(loaded.gallery)]
    cosines = (ours * theirs).sum(axis=1)
    assert 0.9 < cosines.min() < 1 - 1e-5  # near those of float32, and not the same
    images = [open_image(path) for path in sorted(in_int8.parent.rglob("*.png"))] or images_of(loaded)
    alone = np.concatenate([loaded.encoder.embed_images([image]) for image in images])
    assert np.allclose(alone, loaded.encoder.embed_images(images), atol=1e-5)


def test_card_and_manifest_state_the_figures_of_both_precisions(in_int8):
    loaded = load_artifact(in_int8)
    section = loaded.manifest["exported"]
    assert section["images"] == 40
    assert 0 < section["overlap_at_10"] <= 1
    for precision in ("float32", "int8"):
        figures = section[precision]
        assert figures.keys() == {"hit_at_1", "p_at_5", "map"}
        assert f"| {precision} | {figures['hit_at_1']:.3f} | {figures['p_at_5']:.3f} | " in loaded.card
    assert "The vectors come from `onnx/model.onnx`, which computes in int8" in loaded.card
    assert "timm.create_model" not in loaded.card  # its vectors would be searched among others


def test_parts_of_an_int8_embedding_add_up_to_it(in_int8):
    encoder = load_artifact(in_int8).encoder
    for image in images_of(load_artifact(in_int8), 3):
        total = encoder.cells(image).embedding
        assert np.allclose(total / np.linalg.norm(total), encoder.embed_images([image])[0], atol=1e-5)


def test_timm_still_loads_the_network_in_float32(in_int8, encoder):
    model = timm.create_model(f"local-dir:{in_int8}", pretrained=True)
    found, expected = model.state_dict(), encoder.model.state_dict()
    assert all(np.array_equal(found[name].numpy(), tensor.numpy()) for name, tensor in expected.items())


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_other_engines_are_refused_for_an_int8_artifact(in_int8, engine, monkeypatch):
    with pytest.raises(
        IntegrityError, match=rf"in int8, and its vectors are those of onnx: {engine} would give others"
    ):
        load_artifact(in_int8, engine=engine)
    monkeypatch.setenv(ENGINE, engine)
    with pytest.raises(IntegrityError, match="Leave out the engine"):
        load_artifact(in_int8)
    monkeypatch.setenv(ENGINE, "onnx")
    assert load_artifact(in_int8).encoder.precision == "int8"


def test_claiming_another_precision_is_refused(in_int8, tmp_path):
    folder = shutil.copytree(in_int8, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = config.pop("lookalike")
    assert stated == {"precision": "int8", "engine": "onnx"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # Read as float32, the same file is another encoder.
    assert Encoder.load(folder).fingerprint != load_artifact(in_int8).encoder.fingerprint
    for wrong in ({"precision": "int4", "engine": "onnx"}, {"precision": "int8"}, {"engine": "onnx"}):
        (folder / "config.json").write_text(json.dumps({**config, "lookalike": wrong}), encoding="utf-8")
        with pytest.raises(EncoderError, match="precision must be float32, or int8 with the engine onnx or openvino"):
            Encoder.load(folder)


def test_added_images_are_embedded_in_int8(in_int8, pictures, tmp_path):
    folder = shutil.copytree(in_int8, tmp_path / "copy")
    before = load_artifact(folder)
    new = add_images(folder, open_source(str(pictures)))
    assert len(new.gallery) == 60
    assert new.encoder.precision == "int8"
    for name in ("encoder", "exported"):
        assert new.manifest[name] == before.manifest[name]
    assert np.array_equal(vectors_of(new)[:40], vectors_of(before))
    path = pictures / new.gallery.take([59])[0].source
    assert np.allclose(new.encoder.embed_images([open_image(path)])[0], vectors_of(new)[59], atol=1e-3)
    assert export_encoder(folder).encoder.precision == "int8"  # it has its exported network already


def test_refused_build_continues_in_int8_and_never_in_float32(pictures, encoder, tmp_path, capsys, monkeypatch):
    source, out = open_source(str(pictures)), tmp_path / "a"
    monkeypatch.setattr("retrieval.build.precision.comparison.MOST_LOSS", -2)  # no encoder is so much better in int8
    discarded = "discarding 30 images embedded by an interrupted build: it used a different encoder"
    embed(source, out, encoder, {}, 30, None, f"build {source.fingerprint}")  # an interrupted build in float32
    with pytest.raises(PrecisionError, match="--accept-loss"):
        build_artifact(source, out, Encoder.of(encoder.model), limit=30, precision="int8")
    told = capsys.readouterr().err
    assert discarded in told
    assert "quantizing" in told
    assert not out.exists()
    shutil.copytree(work_folder(out), work_folder(tmp_path / "b"))

    build_artifact(source, tmp_path / "b", Encoder.of(encoder.model), limit=30, precision="int8", accept_loss=True)
    told = capsys.readouterr().err
    assert "quantizing" not in told
    assert "discarding" not in told
    build_artifact(source, out, Encoder.of(encoder.model), limit=30)
    assert discarded in capsys.readouterr().err
    int8, float32 = load_artifact(tmp_path / "b"), load_artifact(out)
    assert (int8.encoder.precision, float32.encoder.precision) == ("int8", "float32")
    own = encoder.embed_images([open_image(pictures / image.source) for image in float32.gallery.take(range(30))])
    assert np.allclose(vectors_of(float32), own, atol=1e-5)
    assert not np.allclose(vectors_of(int8), own, atol=1e-3)
    assert not work_folder(out).exists()


def test_loss_of_accuracy_is_refused_unless_accepted():
    found = {"images": 90, "overlap_at_10": 0.8, "float32": {"map": 0.7}, "int8": {"map": 0.6949}}
    with pytest.raises(PrecisionError, match=r"mAP falls from 0.7000 to 0.6949 on 90 images.*--accept-loss"):
        check_loss(found, accept=False)
    check_loss(found, accept=True)
    check_loss({**found, "int8": {"map": 0.6951}}, accept=False)
    check_loss({"images": 90, "overlap_at_10": 0.1}, accept=False)  # no labels


def test_calibration_images_are_spread_over_a_source_and_always_the_same(pictures, encoder, tmp_path, monkeypatch):
    source = open_source(str(pictures))
    monkeypatch.setattr("retrieval.build.precision.calibration.IMAGES", 10)
    chosen = calibration_pixels(encoder, source, tmp_path, None)
    again = calibration_pixels(encoder, source, tmp_path, None)
    assert len(chosen) == 10
    assert np.array_equal(chosen, again)
    first = [encoder.preprocess(open_image(raw.read())) for raw, _ in zip(source.rows(), range(60), strict=True)]
    places = sorted(next(at for at, one in enumerate(first) if np.array_equal(one, pixels)) for pixels in chosen)
    assert places[0] < 20 < 40 < places[-1]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    with pytest.raises(SourceError, match="none of them can be read"):
        calibration_pixels(encoder, open_source(str(tmp_path / "broken")), tmp_path, None)


def test_int8_with_torch_is_refused_before_anything_is_embedded(pictures, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv(ENGINE, "torch")
    with pytest.raises(EncoderError, match="int8 needs the engine onnx or openvino, not torch"):
        build_artifact(open_source(str(pictures)), tmp_path / "a", Encoder.of(encoder.model), precision="int8")
    assert not list(tmp_path.iterdir())


def test_int8_encoder_cannot_build_another_artifact(in_int8, pictures, tmp_path):
    with pytest.raises(EncoderError, match="in int8 already"):
        build_artifact(open_source(str(pictures)), tmp_path / "a", load_artifact(in_int8).encoder)


WITHOUT = (
    "import sys; sys.modules['nncf'] = None; from retrieval.encoders.network.quantize import check_installed as c; c()"
)


def test_missing_nncf_is_named_with_its_command():
    done = python("-c", WITHOUT, timeout=120)
    assert "MissingExtraError: --precision int8 needs nncf, which is not installed: pip install" in done.stderr
    assert "[int8]" in done.stderr


TELEMETRY = """
import sys
from retrieval.encoders.network.quantize import check_installed

check_installed()
from nncf.telemetry.wrapper import telemetry

print(type(telemetry).__name__, "openvino_telemetry" in sys.modules)
"""


def test_nncf_sends_nothing_to_its_makers():
    assert python("-c", TELEMETRY, timeout=120).stdout.split() == ["MagicMock", "False"]
