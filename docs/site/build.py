"""Build the HTML site: `python docs/site/build.py [FOLDER]`, by default build/site.

Sphinx wants all that it reads below one folder: FOLDER-sources gets the documents and notebooks where they
are in the repository, so that relative links mean the same here and there, the README as start page with the
navigation of docs/README.md, and a page of reference for each package.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]
PACKAGES = ("mohge", "datamodules", "callbacks", "evaluation")
LINKED = (*PACKAGES, "conf", "tests", "LICENSE", "Makefile", "pyproject.toml")
"""What documents may link to, besides each other."""


def lay_out(sources: Path) -> None:
    """Fills a folder with all that Sphinx reads.

    Args:
        sources: the folder; what an earlier build left there is replaced.
    """
    if sources.exists():
        shutil.rmtree(sources)  # links are removed, not what they lead to
    sources.mkdir(parents=True)
    for name in LINKED:
        (sources / name).symlink_to(ROOT / name)
    for name in ("docs", "notebooks"):  # copies, since links to a link are resolved
        shutil.copytree(ROOT / name, sources / name)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (sources / "index.md").write_text(f"{readme}\n{navigation()}", encoding="utf-8")
    reference = sources / "reference"
    reference.mkdir()
    packages = {package: list(modules) for package, modules in public_modules()}
    for package, modules in packages.items():
        (reference / f"{package}.md").write_text(package_page(package, modules), encoding="utf-8")
    (reference / "index.md").write_text(reference_page(list(packages)), encoding="utf-8")


def navigation() -> str:
    """The table of contents: the sections and links of docs/README.md, then the reference."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", index, flags=re.MULTILINE | re.DOTALL)
    trees = [_tree("Start", ["Overview <self>", "All documents <docs/README>"])]
    for title, text in sections:
        links = re.findall(r"^- \[(.+?)\]\((.+?)\.(?:md|ipynb)\)", text, flags=re.MULTILINE)
        trees.append(_tree(title, [f"{name} <{_from_root(target)}>" for name, target in links]))
    trees.append(_tree("Reference", ["Packages and modules <reference/index>"]))
    return "\n".join(trees)


def public_modules() -> Iterator[tuple[str, list[str]]]:
    """The packages that have code, each with its modules, itself first."""
    for folder in sorted(path for name in PACKAGES for path in [ROOT / name, *(ROOT / name).rglob("*/")]):
        if (folder / "__init__.py").exists():
            package = ".".join(folder.relative_to(ROOT).parts)
            names = sorted(path.stem for path in folder.glob("[!_]*.py"))
            yield package, [package, *(f"{package}.{name}" for name in names)]


def package_page(package: str, modules: list[str]) -> str:
    """Markdown of one package: a section for each of its modules."""
    own, *others = modules
    sections = [f"# {package}", _automodule(own)]
    for module in others:
        sections += [f"## {module}", _automodule(module)]
    return "\n\n".join(sections) + "\n"


def reference_page(packages: list[str]) -> str:
    """Markdown of the page that lists the packages, with the first line of each one's docstring."""
    rows = [f"| [{package}]({package}.md) | {_summary(package)} |" for package in packages]
    table = "\n".join(["| package | holds |", "|---|---|", *rows])
    return f"# Reference\n\n{table}\n\n{_tree('', packages)}"


def _tree(caption: str, entries: list[str]) -> str:
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return f"```{{toctree}}\n{options}\n" + "\n".join(entries) + "\n```\n"


def _automodule(module: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {module}\n```"


def _summary(package: str) -> str:
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].replace("|", r"\|")


def _from_root(target: str) -> str:
    """Name of a document, from that of its link in docs/README.md."""
    return target.removeprefix("../") if target.startswith("../") else f"docs/{target}"


def main() -> int:
    """Builds the site, with every warning an error, and returns the exit status."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").absolute()
    sources = folder.with_name(f"{folder.name}-sources")
    lay_out(sources)
    settings = ["-c", str(Path(__file__).parent / "settings"), "-d", f"{folder}-cache"]
    status = sphinx(["--quiet", "--fail-on-warning", *settings, str(sources), str(folder)])
    if status == 0:
        print(f"built {folder / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
