"""CITATION.cff keeps the rules of the Citation File Format 1.2.0 and names what this package is built on."""

import re
from pathlib import Path

import pytest
import yaml

import crossearth_hf

ROOT = Path(__file__).resolve().parents[2]
# Of the schema at https://github.com/citation-file-format/citation-file-format, version 1.2.0.
REQUIRED = {"authors", "cff-version", "message", "title"}
KEYS = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip
PERSON = {
    "affiliation",
    "alias",
    "email",
    "family-names",
    "given-names",
    "name-particle",
    "name-suffix",
    "orcid",
}
REFERENCE = {
    "authors", "title", "type", "abstract", "collection-title", "conference", "doi", "identifiers", "journal", "month",
    "notes", "pages", "url", "volume", "year",
}  # fmt: skip
DOI = r"10\.\d{4,9}(\.\d+)?/[A-Za-z0-9:/_;\-.()\[\]\\]+"


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def is_author(author):
    if "name" in author:
        return set(author) <= {"name", "alias", "email", "website"}
    return {"family-names", "given-names"} <= set(author) <= PERSON


def test_its_fields_are_those_of_the_format(citation):
    assert citation["cff-version"] == "1.2.0"
    assert REQUIRED <= set(citation) <= KEYS
    assert citation["type"] in {"software", "dataset"}
    assert citation["authors"]
    assert all(map(is_author, citation["authors"]))
    assert all(isinstance(keyword, str) for keyword in citation["keywords"])


def test_its_references_are_complete(citation):
    for reference in citation["references"]:
        assert {"authors", "title", "type", "year"} <= set(reference) <= REFERENCE
        assert reference["type"] in {"article", "conference-paper", "software", "data"}
        assert all(map(is_author, reference["authors"]))
        assert isinstance(reference["year"], int)
        assert re.fullmatch(DOI, reference.get("doi", "10.1000/none"))
        assert set(reference.get("conference", {"name": ""})) == {"name"}
        for identifier in reference.get("identifiers", ()):
            assert identifier["type"] in {"doi", "url", "swh", "other"}
            assert identifier["value"]


def test_it_names_the_paper_and_this_version(citation):
    paper = citation["references"][0]
    assert paper["title"].startswith("CrossEarth: Geospatial Vision Foundation Model")
    assert paper["authors"][0]["family-names"] == "Gong"
    assert paper["identifiers"][0]["value"] == "arXiv:2410.22629"
    project = dict(
        re.findall(r'^(\w+) = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    )
    assert citation["version"] == project["version"] == crossearth_hf.__version__
    assert citation["license"] == project["license"]
