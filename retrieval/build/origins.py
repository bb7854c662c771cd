"""Where the images of an artifact come from after all its changes, and the licences that the Hub knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval.artifact.sections import TrainingSection
from retrieval.encoders.presets.licences import RANDOM, UNKNOWN, Weights, allows, link_of, name_of
from retrieval.evaluation.markdown import plain

# The ids that the Hub accepts in a card: https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
    lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by
    ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)


def sources_of(facts: Mapping[str, Any], training: TrainingSection | None) -> list[dict[str, str]]:
    """Facts about the image sources: first the training or build source, then those added; a sync replaces them."""
    found = [dict((training and training.data.about) or (facts.get("build") or {}).get("source") or {})]
    for change in facts.get("changes") or []:
        if about := change.get("sync", {}).get("source"):
            # The licence may have been given to `build` only.
            before = next((known for known in found if known.get("name") == about.get("name")), {})
            found = [*found[: bool(training)], *([] if training and before else [{**before, **about}])]
        elif about := change.get("add", {}).get("source"):
            found.append(dict(about))
    return found


def license_of(sources: Sequence[Mapping[str, Any]], weights: Iterable[Weights | None]) -> tuple[str, str | None]:
    """The Hub's license id for the artifact; for `other`, also its name.

    It is the one of the images, of which there are thumbnails. The licence of the weights counts too if it restricts
    what may be done with them.
    """
    stated = {str(source.get("license") or UNKNOWN).lower() for source in sources}
    stated |= {str(one.license).lower() for one in weights if one and one.is_restricted}
    only = stated.pop() if len(stated) == 1 else "several"
    return (only, None) if only in LICENSES else ("other", re.sub(r"[^a-z0-9.]+", "-", only)[:60].strip("-"))


def weights_lines(weights: Weights | None, called: str) -> list[str]:
    """The line of a card that says which weights a model has, or was trained from, and under which licence."""
    if weights is None:
        return []
    name = plain(weights.name)
    lines = f"- **{called}:** "
    if weights.license is None:
        return [f"{lines}{'random weights' if weights.name == RANDOM else name}"]
    lines += f"[{name}]({weights.page}), " if weights.page else f"{name}, "
    if weights.license == UNKNOWN:
        return [f"{lines}licence not stated; check where the weights come from"]
    licence, link = plain(name_of(weights.license)), link_of(weights.license)
    lines += f"licence: [{licence}]({link})" if link else f"licence: {licence}"
    return [f"{lines}{f', {only}' if (only := allows(weights.license)) else ''}"]
