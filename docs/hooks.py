"""What `mkdocs build` does besides.

The reference is made of the installed layout, where `envs/` is `jepa_agent.envs`. Links to files of the repository that are
no pages lead to copies of pictures and reports, or become the name of the file. Formulae become MathML, which browsers draw
without a script; GitHub draws the same blocks by itself.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LAYOUT = ROOT / "build" / "layout_docs"
SHOWN = (".png", ".svg", ".html")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_startup(**_: Any) -> None:
    """Make the folder, which mkdocstrings looks for when it is configured."""
    LAYOUT.mkdir(parents=True, exist_ok=True)


def on_config(config: Any) -> Any:
    """Let blocks marked as math be formulae."""
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [{"name": "math", "class": "math", "format": formula}]}
    return config


def formula(source: str, *_: Any, **__: Any) -> str:
    """A formula in LaTeX as MathML on a line of its own, which scrolls where the page is narrow."""
    return f'<div class="math">{convert(source, display="block")}</div>'


def on_pre_build(**_: Any) -> None:
    """Copy the package as it is installed, for mkdocstrings to read; nothing of it is imported."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    left_out = shutil.ignore_patterns("__pycache__", "cli", "zoo")
    shutil.copytree(ROOT / "jepa_agent", LAYOUT / "jepa_agent", ignore=left_out)
    shutil.copytree(ROOT / "envs", LAYOUT / "jepa_agent" / "envs", ignore=left_out)


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Point links that leave `docs/` to copies on the site, or name the file; a link to no file stays, for a warning."""
    folder = (DOCS / page.file.src_uri).parent

    def rewritten(link: re.Match[str]) -> str:
        mark, text, target = link.groups()
        path = (folder / target).resolve()
        if "://" in target or target.startswith("#") or path.is_relative_to(DOCS) or not path.is_file():
            return link[0]
        if path.with_suffix(".html").is_file():  # of a report, which is written in both forms
            path = path.with_suffix(".html")
        name = path.relative_to(ROOT).as_posix()
        if path.suffix not in SHOWN:
            return f"{text} (`{name}`)" if text != name else f"`{name}`"
        if files.get_file_from_path(f"repository/{name}") is None:
            files.append(File.generated(config, f"repository/{name}", abs_src_path=str(path)))
        return f"{mark}[{text}]({os.path.relpath(DOCS / 'repository' / name, folder)})"

    return LINK.sub(rewritten, markdown)
