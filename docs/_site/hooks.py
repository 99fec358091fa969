"""What MkDocs calls while it builds the site: parts of pages that are made from the code, and the rest of `nav`."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
DOCS = HERE.parent
sys.path[:0] = [str(HERE), str(DOCS.parent)]

import charts
import layers
import reference

# these pages are written whole by other scripts
WHEN = {
    "operators.md": "you want to know whether an operator of torch is right inside a stack of transforms.",
    "borders.md": "you want to know whether a derivative is right at zeros, ties and singular matrices.",
}


def on_config(config: Any) -> None:
    """Put into the navigation what stands in the tables of this folder, and the pages that no line names."""
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    sections["Reference"][:0] = ["reference/index.md", *(f"reference/{key}.md" for key in reference.PAGES)]
    sections["Inside"].append({"Layers": [f"inside/{name}.md" for name in layers.packages()]})
    sections["Guides"] += sorted(
        {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {*paths(config.nav)}
    )


def on_files(files: Files, config: Any) -> None:
    """Add the pictures, and the pages of packages for which nobody has written one."""
    made = {"benchmarks.svg": charts.draw(charts.bars(charts.PAGE.read_text(encoding="utf-8")))}
    made |= {f"inside/{name}.svg": layers.draw(name) for name in layers.packages()}
    missing = [name for name in layers.packages() if not (DOCS / "inside" / f"{name}.md").exists()]
    for path, text in (made | {f"inside/{name}.md": layers.stub(name) for name in missing}).items():
        files.append(File.generated(config, path, content=text))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add to a page what is made from the code."""
    return extended(page.file.src_uri, markdown)


def extended(path: str, text: str) -> str:
    """Return the text of a page of docs/ with the part that is made from the code."""
    if path in WHEN:
        return text.replace("\n\n", f"\n\nWhen to use this: {WHEN[path]}\n\n", 1)
    folder, _, name = path.removesuffix(".md").rpartition("/")
    if (folder, name) == ("reference", "index"):
        return f"{text}\n{reference.index({key: title(key) for key in reference.PAGES})}"
    if folder == "reference":
        return f"{text}\n{reference.render(reference.entries()[name])}"
    if folder == "inside":
        return f"{text}\n{layers.render(name)}"
    return charts.with_chart(text) if path == "benchmarks.md" else text


def title(key: str) -> str:
    """Return the title of a page of the reference."""
    return (DOCS / "reference" / f"{key}.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def paths(nav: Any) -> list[str]:
    """Return the paths that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [path for part in (nav.values() if isinstance(nav, dict) else nav) for path in paths(part)]
