"""A recipe with an artifact in int8."""

from conftest import tiny_recipe

from retrieval.artifact.load import load_artifact
from training.run import train


def test_artifact_of_a_recipe_is_in_float32_where_int8_costs_too_much(drawings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("retrieval.build.precision.comparison.MOST_LOSS", -2)  # no encoder is so much better in int8
    recipe = tiny_recipe(data=str(drawings), epochs=0, precision="int8")
    artifact = load_artifact(train(recipe, tmp_path / "a"))
    assert artifact.encoder.precision == "float32"
    assert "The artifact is written in float32 instead: int8 costs too much here" in capsys.readouterr().err
