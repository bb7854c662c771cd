"""The tabs about the artifact: its evaluation; and its card, its revision, and how programs call the app."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from retrieval.artifact.load import Artifact
from retrieval.evaluation import markdown as report
from retrieval.ui.pieces.html import render
from retrieval.ui.pieces.thumbnails import ThumbnailFiles

# Anybody may have written the card of an artifact: HTML is escaped, and pictures, which could be on any host, left out.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_PICTURE = re.compile(r"!\[[^\]]{0,2000}\]\([^)]{0,2000}\)")  # bounded, or many "![" would take minutes
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def evaluation_html(artifact: Artifact, thumbnails: ThumbnailFiles) -> str:
    """The figures and plots of an artifact's evaluation."""
    metrics = artifact.metrics
    blocks = [
        *(report.evaluation_lines(metrics.evaluation) if metrics.evaluation else []),
        report.audit_lines(metrics.audit, metrics.evaluation),
        report.calibration_lines(metrics.calibration),
        *report.leave_one_out_lines(metrics),
    ]
    text = _html("\n\n".join("\n".join(block) for block in blocks if block))
    plots = [
        (Path(name).stem.replace("_", " "), thumbnails.publish(Path(name).name, content))
        for name, content in artifact.plots.items()
    ]
    return render("evaluation", text=text, plots=plots)


def about_html(artifact: Artifact) -> str:
    """The card of an artifact, and how to call the app."""
    return render("about", commit=artifact.commit, card=_html(_FRONT_MATTER.sub("", artifact.card)))


def _html(markdown: str) -> str:
    """Markdown as HTML that is safe to show; code and tables wider than the page can be scrolled by keyboard."""
    html = str(_MARKDOWN.render(_PICTURE.sub("", markdown))).replace("<a ", '<a target="_blank" rel="noreferrer" ')
    return html.replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">')
