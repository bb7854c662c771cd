"""The licence of an encoder's weights, from the command line to whatever tells of an artifact."""

import json
from dataclasses import replace

import pytest
import yaml
from conftest import BACKBONE, noise, tiny_recipe

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.encoders.files import WEIGHTS_FILE
from retrieval.encoders.image import Encoder
from training.__main__ import main as training

LICENCE = "cc-by-nc-4.0"
SAID = (
    f"note: the weights of {BACKBONE} are under CC BY-NC 4.0, for non-commercial use only: read it before you publish"
)
ON_THE_CARD = "licence: [CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/), non-commercial use only"


@pytest.fixture(scope="module")
def weights(encoder, tmp_path_factory):
    """A file of weights, with nothing beside it that tells of them."""
    folder = tmp_path_factory.mktemp("weights")
    encoder.save(folder)
    return (folder / WEIGHTS_FILE).rename(tmp_path_factory.mktemp("alone") / "mine.safetensors")


def card_of(folder):
    """The text of a card, and its metadata."""
    text = (folder / LAYOUT.card).read_text(encoding="utf-8")
    return text, yaml.safe_load(text.split("---\n")[1])


def test_licence_of_the_weights_of_a_build_is_said_and_kept(weights, pictures, here, tmp_path):
    out = tmp_path / "it"
    asked = ["--backbone", BACKBONE, "--weights", weights, "--weights-license", LICENCE, "--limit", "12"]
    status, _, err = here("build", pictures, "--out", out, *asked, "--license", LICENCE)
    assert status == 0, err
    assert [line for line in err.splitlines() if line.startswith("note: the weights")] == [
        f"{SAID} (https://creativecommons.org/licenses/by-nc/4.0/)."
    ]
    noise(tmp_path / "more" / "a" / "one.png", 1)
    for command in ([], ["add", out, tmp_path / "more"], ["remove", out, load_artifact(out).gallery.ids[0]]):
        if command:
            status, _, err = here(*command)
            assert status == 0, err
        artifact = load_artifact(out)
        assert artifact.manifest["encoder"]["weights"] == {"name": "mine.safetensors", "license": LICENCE}
        assert artifact.encoder.weights.license == LICENCE
        text, metadata = card_of(out)
        assert f"- **Weights:** mine.safetensors, {ON_THE_CARD}\n" in text
        assert metadata["license"] in (LICENCE, "other")  # the added image has none
        assert f"\nweights  mine.safetensors, licence {LICENCE}\n" in here("info", out)[1]
        assert json.loads(here("info", out, "--json")[1])["encoder"]["weights"]["license"] == LICENCE


def test_licence_of_the_weights_is_on_the_card_although_that_of_the_images_is_open(weights, pictures, here, tmp_path):
    asked = ["--backbone", BACKBONE, "--weights", weights, "--limit", "12", "--license", "mit"]
    assert here("build", pictures, "--out", tmp_path / "open", *asked, "--weights-license", "mit")[0] == 0
    assert card_of(tmp_path / "open")[1]["license"] == "mit"
    assert here("build", pictures, "--out", tmp_path / "it", *asked, "--weights-license", LICENCE)[0] == 0
    metadata = card_of(tmp_path / "it")[1]
    assert (metadata["license"], metadata["license_name"]) == ("other", "several")


def test_usual_licence_is_stated_and_nothing_is_said_at_build(weights, pictures, here, tmp_path):
    asked = ["--backbone", BACKBONE, "--weights", weights, "--weights-license", "apache-2.0", "--limit", "12"]
    status, _, err = here("build", pictures, "--out", tmp_path / "it", *asked)
    assert (status, "note:" in err) == (0, False)
    assert "- **Weights:** mine.safetensors, licence: [Apache 2.0](" in card_of(tmp_path / "it")[0]


def test_artifact_trained_from_restricted_weights_has_their_licence(weights, drawings, tmp_path, capsys):
    settings = tiny_recipe(data=str(drawings), epochs=1, weights=str(weights)).settings()
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    assert training([str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "it"), "--weights-license", LICENCE]) == 0
    assert SAID in capsys.readouterr().out
    assert load_artifact(tmp_path / "it").manifest["encoder"]["weights"]["license"] == LICENCE
    assert f"- **Trained from:** mine.safetensors, {ON_THE_CARD}\n" in card_of(tmp_path / "it")[0]
    # What starts from the weights of that artifact has it too, without being told.
    after = Encoder.create(BACKBONE, weights=tmp_path / "it" / WEIGHTS_FILE)
    assert after.weights == replace(after.weights, name="mine.safetensors", license=LICENCE)


# The text model


def test_licence_of_a_text_model_is_said_and_kept(pictures, clip, here, tmp_path):
    out = tmp_path / "it"
    asked = ["--backbone", BACKBONE, "--no-pretrained", "--limit", "12", "--license", "mit", "--text-model", clip]
    status, _, err = here("build", pictures, "--out", out, *asked, "--text-model-license", LICENCE)
    assert status == 0, err
    assert f"note: the weights of {clip.name} are under CC BY-NC 4.0, for non-commercial use only" in err
    noise(tmp_path / "more" / "a" / "one.png", 1)
    for command in ([], ["add", out, tmp_path / "more"]):
        assert not command or here(*command)[0] == 0
        artifact = load_artifact(out)
        assert artifact.manifest["text"]["weights"] == {"name": clip.name, "license": LICENCE}
        assert artifact.text.encoder.licence == LICENCE
        text, metadata = card_of(out)
        assert f"- **Weights for text search:** {clip.name}, {ON_THE_CARD}\n" in text
        assert (metadata["license"], metadata["license_name"]) == ("other", "several")
        assert (
            f"\nwords    searches by words are possible, with {clip.name}, licence {LICENCE}\n" in here("info", out)[1]
        )


def test_text_model_without_a_stated_licence_says_so_on_the_card(pictures, clip, here, tmp_path):
    asked = ["--backbone", BACKBONE, "--no-pretrained", "--limit", "5", "--license", "mit", "--text-model", clip]
    status, _, err = here("build", pictures, "--out", tmp_path / "it", *asked)
    assert (status, "note:" in err) == (0, False)
    text, metadata = card_of(tmp_path / "it")
    assert (
        f"- **Weights for text search:** {clip.name}, licence not stated; check where the weights come from\n" in text
    )
    assert metadata["license"] == "mit"


def test_licence_of_a_text_model_without_one_is_refused(pictures, here, tmp_path):
    asked = ["--backbone", BACKBONE, "--no-pretrained", "--text-model-license", "mit"]
    status, _, err = here("build", pictures, "--out", tmp_path / "it", *asked)
    assert (status, err.count("\n")) == (1, 1)
    assert err.endswith("name that with --text-model.\n")
    assert not (tmp_path / "it").exists()
