"""Artifacts as a training run makes them: metrics.json has more sections than those computed from the gallery."""

from retrieval.build.build import building


def build_run(source, out, encoder, sections, **options):
    """Build an artifact, with the sections that `sections(draft)` returns added to its metrics."""
    with building(source, out, encoder, **options) as (draft, _):
        draft.sections.update(sections(draft))
