"""Tables say what was measured and no more, and no text of a report becomes markup."""

import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from report_folders import entry, pictures, scenario_entry, write_report

from crossearth_hf.evaluation.numbers import ABSENT
from crossearth_hf.reporting.comparison import compare
from crossearth_hf.reporting.page import render_html, render_markdown, target_section
from crossearth_hf.reporting.tables import (
    entry_table,
    escape_markdown,
    markdown,
    notes,
    score_table,
)

EXAMPLES = {
    name: pictures(name, 0.7, 0, images=1, side=32) for name in ("isprs", "casid", "building")
}
MARKDOWN = MarkdownIt("commonmark").enable("table")
EVIL = "<script>alert('a')</script>|**b**[c](http://d)`e` & $x$"


def scenario(code, value, label_set="isprs"):
    made = scenario_entry(code, EXAMPLES[label_set])
    made["scores"]["mean_iou"], made["intervals"]["mean_iou"] = value, [value - 0.015, value + 0.01]
    return made


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two models on two unseen targets, a binary and an in-domain one; the first lacks one of them."""
    root = tmp_path_factory.mktemp("reports")
    first = {"P(i)2V": scenario("P(i)2V", 0.5), "Tms2Tms": scenario("Tms2Tms", 0.7, "casid")}
    second = {"P(i)2V": scenario("P(i)2V", 0.45), "A2S": scenario("A2S", 0.6, "building")}
    third = write_report(
        root / "c",
        {"P(i)2V": scenario("P(i)2V", 0.9)},
        name="cheat",
        selection="chosen on the target (oracle)",
    )
    return compare(
        [
            write_report(root / "a", first, name="a"),
            write_report(root / "b", second, name="b"),
            third,
        ]
    )


def rows_of(table):
    """Rows by their first cell's text, in sections."""
    return {title: {row[0].text: row for row in rows} for title, rows in table.sections}


def test_scores_stand_under_their_models(comparison):
    table = score_table(comparison)
    sections = rows_of(table)
    assert [column.title.text for column in table.columns[4:]] == [
        "a", "b", "cheat", "DAFormer", "HRDA", "MTP", "Rein", "CrossEarth",
    ]  # fmt: skip
    assert table.groups == [("", 4), ("mean IoU, %", 3), ("published (other harness)", 5)]
    texts = [cell.text for cell in sections["unseen targets"]["P(i)2V"]]
    assert texts[:7] == [
        "P(i)2V", "region", "potsdam_irrg → vaihingen", "1", "50.0 [48.5, 51.0]", "45.0 [43.5, 46.0]",
        "90.0 [88.5, 91.0]",
    ]  # fmt: skip
    assert texts[7:] == ["54.4", "54.7", "62.6", "60.3", "67.5"]
    assert [cell.best for cell in sections["unseen targets"]["P(i)2V"]].index(True) == 4
    assert sections["unseen targets"]["A2S"][4].text == ABSENT
    assert "A2S, foreground IoU" in sections["unseen targets"]


def test_in_domain_targets_stand_apart_and_the_mean_says_what_it_is_over(comparison):
    table = score_table(comparison)
    sections = rows_of(table)
    assert list(sections) == ["unseen targets", "in-domain, in no mean"]
    assert list(sections["in-domain, in no mean"]) == ["Tms2Tms"]
    mean = [cell.text for cell in sections["unseen targets"]["mean"]]
    assert mean == ["mean", "", "1 targets that all have", "", "50.0", "45.0", "90.0", "54.4", "54.7", "62.6", "60.3",
                    "67.5"]  # fmt: skip
    assert "The mean is over P(i)2V." in table.caption
    assert "not a comparison on equal terms" in table.caption


def test_without_a_shared_target_there_is_no_mean(tmp_path):
    first = write_report(tmp_path / "a", {"P(i)2V": scenario("P(i)2V", 0.5)}, name="a")
    second = write_report(tmp_path / "b", {"Tms2Tms": scenario("Tms2Tms", 0.5, "casid")}, name="b")
    table = score_table(compare([first, second]))
    assert "mean" not in rows_of(table)["unseen targets"]
    assert "There is no mean" in table.caption


def test_marks_lead_to_their_notes(comparison):
    numbers = dict(notes(comparison))
    table = score_table(comparison)
    oracle, binary = (
        table.columns[6].title.notes[0],
        rows_of(table)["unseen targets"]["A2S"][0].notes[0],
    )
    assert "oracle" in numbers[oracle]
    assert "foreground's IoU" in numbers[binary]
    assert "A2S²" in markdown(table)
    assert "cheat¹, mean IoU, %" in markdown(table)


def test_all_scores_of_a_target(comparison):
    table = entry_table(comparison, "P(i)2V")
    sections = rows_of(table)
    assert list(sections["IoU per class"]) == [
        "impervious_surface", "building", "low_vegetation", "tree", "car", "clutter",
    ]  # fmt: skip
    assert "foreground IoU" not in sections["over all classes"]
    assert "boundary IoU" not in sections["over all classes"]  # nobody has it
    # less is better there
    assert not any(cell.best for cell in sections["over all classes"]["calibration error"])
    assert "foreground IoU" in rows_of(entry_table(comparison, "A2S"))["over all classes"]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    made = entry(
        "casid",
        EXAMPLES["casid"],
        classes=["a", EVIL, "c", "d", "e"],
        target=EVIL,
        source="<img src=x>",
    )
    made["scored_classes"], made["published"] = made["classes"], {"<b>Rein": 40.0}
    made["scores"]["iou"] = {EVIL: 0.5}
    return compare(
        [write_report(root / "r", {EVIL: made, "P(i)2V": scenario("P(i)2V", 0.5)}, name=EVIL)]
    )


def sections(comparison):
    return [target_section(comparison, name, []) for name in comparison.names]


def test_the_page_escapes_every_name(evil):
    text = render_html(evil, [], sections(evil))
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "b"})
    assert page.text.count(EVIL) >= 5


def test_the_page_is_accessible_and_asks_for_nothing(comparison):
    text = render_html(comparison, [], sections(comparison))
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert page.tags[0] == ("html", {"lang": "en"})
    assert tags.count("table") == tags.count("caption") == 3 + len(comparison.names)
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {"#note-1", "#note-2"} <= {f"#{target}" for target in targets}


def test_markdown_escapes_every_name(evil, tmp_path):
    text = render_markdown(evil, [], sections(evil), tmp_path)
    page = Page(MARKDOWN.render(text))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "a", "b", "code"})
    assert page.text.count(EVIL) >= 5


def test_markdown_tables_keep_their_columns(comparison):
    table = score_table(comparison)
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.columns) + 1}
    assert "**50.0 [48.5, 51.0]**" in markdown(table)


@pytest.mark.parametrize("text", [EVIL, "a_b_c", "1. x", "# y", "a\\b", "![i](j)"])
def test_escaped_markdown_reads_as_it_was_written(text):
    assert Page(MARKDOWN.render("x " + escape_markdown(text))).text.strip() == f"x {text}"
