"""What is known of the artifact: its evaluation, and its card, where it is from, and how programs call it."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
from markdown_it import MarkdownIt

from retrieval.artifact.load import Artifact
from retrieval.evaluation import markdown as report
from retrieval.ui import strings
from retrieval.ui.pieces.html import attributes, script, text
from retrieval.ui.pieces.thumbnails import Thumbnails

# A card comes with an artifact, from anybody: no HTML of its own, and no pictures, which could lie anywhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def add_evaluation(artifact: Artifact, thumbnails: Thumbnails) -> None:
    """Figures and pictures of an artifact's evaluation."""
    metrics = artifact.metrics
    blocks = [
        *(report.evaluation_lines(metrics.evaluation) if metrics.evaluation else []),
        report.audit_lines(metrics.audit, metrics.evaluation),
        report.calibration_lines(metrics.calibration),
        *report.leave_one_out_lines(metrics),
    ]
    body = _html("\n\n".join("\n".join(block) for block in blocks if block))
    pictures = "".join(_plot(name, content, thumbnails) for name, content in artifact.plots.items())
    gr.HTML(
        f'<div class="card-text">{body}</div><div class="plots">{pictures}</div>',
        elem_id="evaluation",
        apply_default_css=False,
    )


def _plot(file: str, content: bytes, thumbnails: Thumbnails) -> str:
    path = Path(file)
    address = thumbnails.publish(path.name, content)
    return f"<img {attributes(src=address, alt=path.stem.replace('_', ' '), loading='lazy')}>"


def add_about(artifact: Artifact) -> None:
    """The card of an artifact, and how to call the app."""
    commit = f"<p>{text(strings.REVISION)} <code>{text(artifact.commit)}</code></p>" if artifact.commit else ""
    calls = "".join(
        f"<h3>{text(name)}</h3><pre><code>{text(code)}</code></pre>" for name, code in strings.CALLS.items()
    )
    calls = _scrolled(f"<h2>{text(strings.CALL)}</h2>{calls}")
    gr.HTML(
        f'<div class="card-text">{commit}{calls}{_html(_FRONT_MATTER.sub("", artifact.card))}</div>',
        js_on_load=script("about.js"),
        elem_id="about",
        apply_default_css=False,
    )


def _html(markdown: str) -> str:
    rendered = str(_MARKDOWN.render(_PICTURE.sub("", markdown))).replace("<a ", '<a target="_blank" rel="noreferrer" ')
    return _scrolled(rendered)


def _scrolled(html: str) -> str:
    """Have what can be wider than the page scrolled by keyboard, too."""
    return html.replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">')
