"""The tabs about the artifact: its evaluation; and its card, its revision, and how programs call the app."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
from markdown_it import MarkdownIt

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import read_metrics
from retrieval.evaluation import markdown as report
from retrieval.hub.pull import Resolved
from retrieval.ui.pieces.html import render, script
from retrieval.ui.pieces.thumbnails import Thumbnails

# Anybody may have written the card of an artifact: HTML is escaped, and pictures, which could be on any host, left out.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def add_evaluation(folder: Path, thumbnails: Thumbnails) -> None:
    """The figures and plots of an artifact's evaluation."""
    metrics = read_metrics(folder)
    training, evaluation = metrics.get("training") or {}, metrics.get("evaluation") or {}
    blocks = [
        *(report.evaluation_lines(evaluation) if evaluation else []),
        report.audit_lines(metrics.get("audit") or {}, evaluation),
        report.calibration_lines(metrics.get("calibration") or {}),
        *report.leave_one_out_lines(metrics.get("leave_one_out") or {}, trained=bool(training.get("steps"))),
    ]
    text = _html("\n\n".join("\n".join(block) for block in blocks if block))
    plots = [(Path(name).stem.replace("_", " "), thumbnails.publish(folder / name)) for name in LAYOUT.plots_in(folder)]
    gr.HTML(render("evaluation", text=text, plots=plots), elem_id="evaluation", apply_default_css=False)


def add_about(artifact: Resolved) -> None:
    """The card of an artifact, and how to call the app."""
    card = (artifact.folder / LAYOUT.card).read_text(encoding="utf-8")
    gr.HTML(
        render("about", commit=artifact.commit, card=_html(_FRONT_MATTER.sub("", card))),
        js_on_load=script("about.js"),
        elem_id="about",
        apply_default_css=False,
    )


def _html(markdown: str) -> str:
    """Markdown as HTML that is safe to show; code and tables wider than the page can be scrolled by keyboard."""
    html = str(_MARKDOWN.render(_PICTURE.sub("", markdown))).replace("<a ", '<a target="_blank" rel="noreferrer" ')
    return html.replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">')
