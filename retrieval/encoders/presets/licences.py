"""Licences of pretrained weights: what they are called, where they stand, and which of them restrict what you may do.

Ids are those of the Hub and of timm. Neither torch nor timm is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import short

UNKNOWN = "unknown"
RANDOM = "random"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_LONGEST = 100  # characters of a name or a licence
_OPEN = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "isc"})
# Licences that timm states for some of its weights -> their name, their text (None: see the page of the weights), and
# what they allow ("": see the text).
_NAMED = {
    "apache-2.0": ("Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0", ""),
    "mit": ("MIT", "https://opensource.org/license/mit", ""),
    "dinov3-license": ("DINOv3 License", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/", ""),
    "cc-by-nc-4.0": ("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/", "non-commercial use only"),
    "fair-noncommercial-research-license": (
        "FAIR Noncommercial Research License", None, "non-commercial research only",
    ),
    "apple-amlr": ("Apple Model License for Research", None, "research only"),
    "apple-ascl": ("Apple Sample Code License", None, ""),
    "nvidia-open-model-license": ("NVIDIA Open Model License", None, ""),
    "gemma": ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms", ""),
}  # fmt: skip


def licence_of_text_model(name: str) -> str:
    """The licence that the card of a model on the Hub states; `unknown` if there is none, and for a folder."""
    if Path(name).expanduser().is_dir():
        return UNKNOWN
    from huggingface_hub import ModelCard

    try:
        stated = ModelCard.load(name, ignore_metadata_errors=True).data
    except Exception:  # the Hub client has a class for each way in which it can fail, and a card may be anything
        return UNKNOWN
    named = stated.license_name if stated.license == "other" else stated.license
    return short(str(named or UNKNOWN), _LONGEST)


@dataclass(frozen=True)
class Weights:
    """Where the weights of an encoder come from, and the licence that they, and all that is trained from them, have."""

    name: str
    """A repository on the Hub (`timm/resnet50.a1_in1k`), the name of a file, or `random`."""
    license: str | None
    """The licence's id on the Hub, or `unknown`; None for random weights."""

    @classmethod
    def read(cls, stated: Any) -> Weights:
        """From JSON that anybody may have written; raises ValueError if it is not of this form."""
        texts = [stated.get(key) for key in ("name", "license")] if isinstance(stated, dict) else []
        if not texts or not isinstance(texts[0], str) or not isinstance(texts[1], str | None):
            raise ValueError(f"weights must be an object with a name and a license, found {short(repr(stated), 60)}")
        return cls(short(texts[0], _LONGEST), texts[1] and short(texts[1], _LONGEST))

    @property
    def page(self) -> str | None:
        """The address of their repository on the Hub, where the licence is stated."""
        return f"https://huggingface.co/{self.name}" if _REPOSITORY.fullmatch(self.name) else None

    @property
    def is_restricted(self) -> bool:
        """Whether they have a licence that is known, and is not one of the usual open ones."""
        return self.license not in (None, UNKNOWN) and str(self.license).lower() not in _OPEN


def weights_in(section: Mapping[str, Any] | None) -> Weights | None:
    """The weights that a section of a manifest states; None without one, and if an older version did not state them."""
    return Weights.read(section["weights"]) if section and section.get("weights") else None


def name_of(licence: str) -> str:
    """`DINOv3 License` for `dinov3-license`; the id itself for those without a name here."""
    return _NAMED.get(licence.lower(), (licence, None, ""))[0]


def link_of(licence: str) -> str | None:
    """The address of the licence's text, if it is known."""
    return _NAMED.get(licence.lower(), (licence, None, ""))[1]


def allows(licence: str) -> str:
    """`non-commercial use only` and the like; empty if the text has to be read."""
    if known := _NAMED.get(licence.lower()):
        return known[2]
    if re.search(r"\bnc\b|non-?commercial", licence.lower()):
        return "non-commercial use only"
    return "research only" if "research" in licence.lower() else ""


def notice(weights: Weights, called: str) -> str | None:
    """What a person has to know before publishing an artifact with these weights; `called` is the encoder's name.

    None for weights under a usual open licence, for random ones, and for files, whose owner knows them.
    """
    if weights.license == UNKNOWN and weights.page:
        return f"no licence is stated for the weights of {called}: look for one before you publish ({weights.page})."
    if not weights.is_restricted:
        return None
    licence = str(weights.license)
    name, only, where = name_of(licence), allows(licence), link_of(licence) or weights.page
    named = f"the licence {licence}" if name == licence else name if name[-1:].isdigit() else f"the {name}"
    return (
        f"the weights of {called} are under {named}, {f'for {only}' if only else 'which has conditions of its own'}: "
        f"read it before you publish{f' ({where})' if where else ''}."
    )
