"""Write README's badges, which open the lessons on Binder and Colab: ``python docs/badges.py``.

The repository's address is set in one place, ``[project.urls] Repository`` of pyproject.toml. Without one there is no
badge. Binder reads environment.yml.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
FIRST = "notebooks/00_start_here.ipynb"
BLOCK = re.compile(r"<!-- badges -->\n(.*?)<!-- /badges -->\n", re.DOTALL)


def repository(root: Path = ROOT) -> str:
    """Return the repository's address, or "" where none is set."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", "")).rstrip("/").removesuffix(".git")


def badges(address: str) -> str:
    """Return the badges as Markdown, a line each. Colab opens notebooks of GitHub only."""
    if not address:
        return ""
    path = address.partition("https://github.com/")[2]
    where = f"gh/{path}" if path else f"git/{quote(address, safe='')}"
    links = {
        "https://mybinder.org/badge_logo.svg": f"https://mybinder.org/v2/{where}/{BRANCH}?urlpath=lab/tree/{FIRST}"
    }
    if path:
        colab = "https://colab.research.google.com"
        links[f"{colab}/assets/colab-badge.svg"] = f"{colab}/github/{path}/blob/{BRANCH}/{FIRST}"
    names = ("Open in Binder", "Open in Colab")
    return "".join(f"[![{name}]({image})]({link})\n" for name, (image, link) in zip(names, links.items(), strict=False))


def write(root: Path = ROOT) -> None:
    """Write the badges between README's marks."""
    readme = root / "README.md"
    block = f"<!-- badges -->\n{badges(repository(root))}<!-- /badges -->\n"
    readme.write_text(BLOCK.sub(lambda _: block, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
