"""Presets, picture sizes and the licences of weights, on real timm networks with random weights."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import load_file

from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.image import Encoder
from retrieval.encoders.network.new import projection_of
from retrieval.encoders.network.sizes import size_arguments
from retrieval.encoders.presets import PRESETS, facts, table_lines
from retrieval.encoders.presets.licences import Weights, link_of, name_of, notice
from retrieval.errors import EncoderError

PICTURE = Image.effect_noise((150, 90), 90).convert("RGB")
SHAPES = [("test_vit", 96), ("test_resnet", 100), ("test_maxvit", 128), ("vit_tiny_patch16_dinov3_qkvb", 64)]


def tiny(backbone, **options):
    return Encoder.create(backbone, **{"pretrained": False, "seed": 0, **options})


# The table


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_table_agrees_with_timm(preset):
    assert timm.is_model(preset.timm.split(".")[0])
    assert preset.timm in timm.list_pretrained()
    own = timm.get_pretrained_cfg(preset.timm)
    assert own.license == preset.license
    assert own.hf_hub_id == preset.weights.name
    arguments = size_arguments(preset.name, preset.pixels)
    assert (arguments is None) == (own.input_size[1:] == (preset.pixels, preset.pixels))
    with torch.device("meta"):
        projection = projection_of(own.to_dict())
        network = timm.create_model(preset.timm, num_classes=projection, **(arguments or {})).eval()
        embeddings = network(torch.empty(2, 3, preset.pixels, preset.pixels))
    assert embeddings.shape == (2, preset.dimension)
    assert sum(parameter.numel() for parameter in network.parameters()) == preset.parameters


def test_table_has_the_facts_of_every_preset_and_fits_a_terminal(here):
    status, printed, _ = here("encoders")
    assert status == 0
    assert max(map(len, printed.splitlines())) <= 120
    lines = list(table_lines())
    for number, preset in enumerate(PRESETS.values()):
        line, about = lines[1 + 2 * number : 3 + 2 * number]
        cells = [preset.name, f"{preset.parameters / 1e6:.1f}", "M", preset.dimension, preset.pixels]
        assert line.split() == [*map(str, cells), f"{preset.cpu_ms:g}", preset.license, preset.timm]
        assert about.strip() == f"good at: {preset.good_at}"
        assert line in printed
    stated = json.loads(here("encoders", "--json")[1])
    assert stated == json.loads(json.dumps(facts()))
    assert "one core" in stated["cpu_ms"]
    assert [one["name"] for one in stated["encoders"]] == list(PRESETS)


def test_page_of_the_docs_has_the_same_table():
    lines = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert rows == [
        [
            f"`{preset.name}`", preset.good_at, f"{preset.parameters / 1e6:.1f} M", str(preset.dimension),
            str(preset.pixels), f"{preset.cpu_ms:g}", f"[{name_of(preset.license)}]({link_of(preset.license)})",
            f"[{preset.timm}]({preset.weights.page})",
        ]
        for preset in PRESETS.values()
    ]  # fmt: skip


def test_page_of_the_docs_names_the_presets_that_explain_themselves():
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", text.split('**"Why?"**')[1].split(" have one")[0]))
    small = [preset.name for preset in PRESETS.values() if preset.parameters < 30e6]
    assert {name for name in small if tiny(name).explains} == named & set(small)


def test_preset_is_the_timm_model_of_its_name():
    preset = PRESETS["tiny"]
    assert tiny("tiny").fingerprint == tiny(preset.timm).fingerprint
    assert PRESETS["resnet50"].timm == f"resnet50.{timm.get_pretrained_cfg('resnet50').tag}"


def test_preset_of_dinov2_gets_smaller_pictures_than_timm_gives_it():
    encoder = tiny("dinov2-small")
    assert encoder.data_config["input_size"] == (3, 224, 224)
    assert encoder.model.pos_embed.shape == (1, 1 + 16 * 16, 384)


def test_misspelt_preset_is_an_error_that_suggests_it():
    with pytest.raises(EncoderError, match=r"no model 'dino3-small'; did you mean .*'dinov3-small'"):
        tiny("dino3-small")


# Picture sizes


@pytest.mark.parametrize(("backbone", "size"), SHAPES)
def test_size_is_kept_by_saving_and_by_timm_alone(tmp_path, backbone, size):
    encoder = tiny(backbone, image_size=size)
    assert encoder.preprocess(PICTURE).shape == (3, size, size)
    vector = encoder.embed_images([PICTURE])
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint != tiny(backbone).fingerprint
    assert np.array_equal(loaded.embed_images([PICTURE]), vector)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        plain = torch.nn.functional.normalize(model(transform(PICTURE)[None])).numpy()
    assert np.allclose(plain, vector, atol=1e-5)


def test_own_size_changes_nothing():
    for backbone, size in (("test_vit", 160), ("test_resnet", 160)):
        assert tiny(backbone, image_size=size).fingerprint == tiny(backbone).fingerprint


def test_weights_from_a_file_are_resampled_as_timm_does(tmp_path):
    tiny("test_vit", seed=5, embedding_size=12).save(tmp_path)
    path = tmp_path / WEIGHTS_FILE
    encoder = Encoder.create("test_vit", weights=path, image_size=96, embedding_size=8, seed=1)
    state = {name: value for name, value in load_file(path).items() if not name.startswith("head.")}
    theirs = timm.create_model("test_vit", pretrained=True, num_classes=0, img_size=96,
                               pretrained_cfg_overlay={"state_dict": state}).state_dict()  # fmt: skip
    ours = encoder.model.state_dict()
    assert theirs["pos_embed"].shape != state["pos_embed"].shape
    assert {name for name in ours if name not in theirs} == {"head.weight", "head.bias"}
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    encoder.save(tmp_path)  # at its own size now
    again = Encoder.create("test_vit", weights=path, image_size=96, seed=1)
    assert torch.equal(again.model.pos_embed, encoder.model.pos_embed)
    with pytest.raises(EncoderError, match="not for 'test_vit'"):
        Encoder.create("test_vit", weights=path, image_size=64)


@pytest.mark.parametrize(
    ("backbone", "size", "said"),
    [
        ("test_vit", 100, "cuts pictures into patches of 16 pixels. The nearest sizes are 96 and 112."),
        ("dinov2-small", 230, "cuts pictures into patches of 14 pixels. The nearest sizes are 224 and 238."),
        ("swin_tiny_patch4_window7_224", 226, "patches of 4 pixels. The nearest sizes are 224 and 228."),
        ("test_maxvit", 100, "The nearest sizes are 96 and 128."),
        ("convnext_atto", 20, "The nearest size is 32."),
        ("test_resnet", 15, "must be 16 to 2,048 pixels, not 15."),
        ("test_resnet", 20_000, "must be 16 to 2,048 pixels, not 20,000."),
    ],
)
def test_size_that_the_network_cannot_take_is_refused_with_the_nearest(backbone, size, said):
    with pytest.raises(EncoderError) as raised:
        tiny(backbone, image_size=size)
    assert str(raised.value).endswith(said)
    assert "\n" not in str(raised.value)


# Licences of weights


def test_licence_of_the_weights_goes_with_the_encoder(tmp_path):
    encoder = tiny("test_resnet")
    assert encoder.weights == Weights("random", None)
    encoder.save(tmp_path)
    path = (tmp_path / WEIGHTS_FILE).rename(tmp_path / "mine.safetensors")
    (other := tmp_path / "other").mkdir()
    assert Encoder.create("test_resnet", weights=path).weights == Weights("mine.safetensors", "unknown")
    stated = Encoder.create("test_resnet", weights=path, weights_license="cc-by-nc-4.0", seed=1)
    assert stated.weights == Weights("mine.safetensors", "cc-by-nc-4.0")
    stated.save(other)
    assert Encoder.load(other).weights == stated.weights
    assert json.loads((other / CONFIG_FILE).read_text())["pretrained_cfg"]["license"] == "cc-by-nc-4.0"
    # The licence of an artifact carries over to what starts from its weights.
    after = Encoder.create("test_resnet", weights=other / WEIGHTS_FILE)
    assert after.weights == stated.weights
    told = Encoder.create("test_resnet", weights=other / WEIGHTS_FILE, weights_license="mit")
    assert told.weights == Weights(WEIGHTS_FILE, "mit")


def test_licence_without_a_file_of_weights_is_refused():
    with pytest.raises(EncoderError, match="only be stated for weights from a file"):
        tiny("test_resnet", weights_license="mit")


@pytest.mark.parametrize("beside", [b"{", b"[]", b'{"lookalike": 3}', b'{"lookalike": {"weights": {"name": 3}}}'])
def test_any_other_config_beside_a_file_of_weights_says_nothing(tmp_path, beside):
    tiny("test_resnet").save(tmp_path)
    (tmp_path / CONFIG_FILE).write_bytes(beside)
    assert Encoder.create("test_resnet", weights=tmp_path / WEIGHTS_FILE).weights.license == "unknown"


@pytest.mark.parametrize("stated", [3, [], {}, {"name": 3, "license": "mit"}, {"name": "x", "license": ["mit"]}])
def test_config_with_weights_of_another_form_is_refused(tmp_path, stated):
    tiny("test_resnet").save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["lookalike"] = {"weights": stated}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="weights must be an object with a name and a license"):
        Encoder.load(tmp_path)


def test_encoder_that_does_not_say_where_its_weights_come_from_still_loads(tmp_path):
    tiny("test_resnet").save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    del config["lookalike"]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    assert Encoder.load(tmp_path).weights is None


@pytest.mark.parametrize(
    ("license_", "said"),
    [
        ("apache-2.0", None),
        ("MIT", None),
        (None, None),
        ("dinov3-license", "are under the DINOv3 License, which has conditions of its own: read it before you publish"),
        ("cc-by-nc-4.0", "are under CC BY-NC 4.0, for non-commercial use only: read it before you publish"),
        ("cc-by-nc-sa-4.0", "are under the licence cc-by-nc-sa-4.0, for non-commercial use only"),
        ("apple-amlr", "are under the Apple Model License for Research, for research only"),
        ("intel-research", "for research only"),
        ("unknown", "no licence is stated for the weights of it: look for one before you publish"),
    ],
)
def test_weights_that_restrict_their_use_say_so(license_, said):
    found = notice(Weights("timm/it", license_), "it")
    assert (said in found) if said else found is None


def test_every_licence_that_timm_states_is_open_or_said():
    of = {timm.get_pretrained_cfg(name).license or "unknown": name for name in timm.list_pretrained()}
    silent = {one for one, name in of.items() if notice(Weights(f"timm/{name}", one), name) is None}
    assert silent == {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"}
    named = {one for one, name in of.items() if "only" in (notice(Weights(f"timm/{name}", one), name) or "")}
    assert named == {"cc-by-nc-4.0", "apple-amlr", "fair-noncommercial-research-license"}
