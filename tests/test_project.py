"""What several files tell of the project is the same in all of them."""

import re
import tomllib

import yaml

from pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_versions_of_python_agree() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    image = re.search(r"^FROM \S+/python:(3\.\d+)", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    assert image is not None
    assert image[1] in PYTHONS
    for page in ("README.md", "docs/start.md"):
        assert f"Python {PYTHONS[0]} or later" in (ROOT / page).read_text(encoding="utf-8")
    assert f"tested to {PYTHONS[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")
