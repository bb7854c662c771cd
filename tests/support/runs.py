"""Artifacts as a training run makes them: with sections of metrics.json beside those that follow from the gallery."""

from retrieval.build.build import building


def build_run(source, out, encoder, sections, **options):
    """Build an artifact whose draft gets the sections that `sections(draft)` gives."""
    with building(source, out, encoder, **options) as (draft, _):
        draft.sections.update(sections(draft))
