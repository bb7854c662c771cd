"""The licence of a text model, as the card of its repository on the Hub states it."""

import pytest

ASK = """
import sys
from retrieval.encoders.presets.licences import licence_of_text_model
print(licence_of_text_model(sys.argv[1]))
"""
CARDS = {
    "---\nlicense: mit\n---\n# A model\n": "mit",
    "---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: LICENSE\n---\n": "apple-amlr",
    "---\nlicense: other\n---\n": "unknown",
    "---\ntags: [clip]\n---\n": "unknown",
    "# A model without metadata\n": "unknown",
    "---\nlicense: [mit\n---\n": "unknown",
    "---\nlicense: " + "x" * 1000 + "\n---\n": "x" * 99 + "…",
}


@pytest.mark.parametrize(("card", "licence"), CARDS.items(), ids=lambda text: repr(text)[:30])
def test_licence_is_what_the_card_on_the_hub_states(hub, client, card, licence):
    hub.commit("model", "me/clip", {"README.md": card.encode()})
    assert client.python("-c", ASK, "me/clip").stdout.strip() == licence


def test_licence_of_a_repository_without_a_card_or_that_does_not_exist_is_unknown(hub, client, tmp_path):
    hub.commit("model", "me/bare", {"config.json": b"{}"})
    for name in ("me/bare", "me/nothing", tmp_path):
        assert client.python("-c", ASK, name).stdout.strip() == "unknown"
