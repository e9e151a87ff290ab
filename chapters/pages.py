"""A notebook as one HTML page that needs nothing else: no network, no program, on a screen of any width.

Formulas are set by the browser itself, from MathML, into which latex2mathml turns them here; figures lie in the page.
Needs nbconvert and latex2mathml: `pip install -e ".[dev]"`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# Nothing is wider than the screen but code, formulas and tables, which scroll on their own.
STYLE = """<style>
.jp-RenderedSVG svg, .jp-RenderedSVG img, .jp-RenderedImage img { max-width: 100%; height: auto; }
.jp-RenderedMarkdown code { overflow-wrap: anywhere; }
.jp-RenderedMarkdown pre code { overflow-wrap: normal; }
.jp-RenderedMarkdown .formula { display: block; overflow-x: auto; overflow-y: hidden; padding: 0.4em 0; }
.jp-RenderedMarkdown math { font-size: 1.1em; }
.jp-RenderedMarkdown table { table-layout: auto; }
.jp-RenderedMarkdown pre, .jp-InputArea-editor .highlight pre, .jp-RenderedText pre, .jp-RenderedHTMLCommon pre {
  white-space: pre; overflow-x: auto; overflow-wrap: normal; word-break: normal; max-width: 100%;
}
.jp-InputArea, .jp-OutputArea-child, .jp-InputArea-editor, .jp-OutputArea-output, .jp-Cell-inputWrapper,
.jp-MarkdownOutput { min-width: 0; max-width: 100%; }
.jp-InputArea-editor, .jp-OutputArea-output { overflow-x: auto; }
@media (max-width: 600px) {
  body.jp-Notebook { padding: 4px; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none; }
  .jp-RenderedMarkdown table { display: block; overflow-x: auto; }
  .jp-Cell { padding: 2px; }
}
</style>
"""


def to_mathml(formula: str, display: str = "inline") -> str:
    """A formula in LaTeX as MathML. Raises ValueError where a command in it is not known."""
    from latex2mathml.converter import convert

    mathml = convert(formula.strip(), display=display).replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "", 1)
    unknown = re.search(r"\\[A-Za-z]+", mathml)
    if unknown is not None:
        raise ValueError(f"The formula {formula.strip()!r} holds {unknown[0]}, which latex2mathml does not know.")
    return mathml  # without a namespace, which HTML doesn't need


def to_html(notebook: Any) -> str:
    """The page of a notebook, outputs included."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class WithMathML(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return to_mathml(body)

        def block_math(self, body: str) -> str:
            return f'<span class="formula">{to_mathml(body, "block")}</span>'

        def multiline_math(self, text: str) -> str:
            return self.block_math(text.strip().strip("$"))

        def latex_environment(self, name: str, body: str) -> str:
            return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def markdown2html(source: str) -> str:
        return MarkdownWithMath(renderer=WithMathML(escape=False)).render(source)

    exporter = HTMLExporter()
    exporter.register_filter("markdown2html", markdown2html)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)  # what would be fetched, and moves nothing here
    return body.replace("</head>", STYLE + "</head>", 1)


def write_html(notebook: Any, path: Path) -> None:
    """Write the page of a notebook, whose links to other chapters lead to their pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', to_html(notebook))
    path.write_text(body, encoding="utf-8")
