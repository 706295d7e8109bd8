"""The reader study's page in a real browser: votes, what is kept, what is exported, and that nothing leaves it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_browser import launched

from rayscribe.data.manifest import Manifest, write_manifest
from rayscribe.reader_study.votes import read_ballot
from rayscribe.study import Study

STUDIES = 6
HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)> "Ünï" \'<b>\' & \u2028 肺 &lt;'
LONG = "pneumonoultramicroscopicsilicovolcanoconiosis" * 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def study(rayscribe: Callable[..., str], tmp_path: Path) -> Path:
    """The folder of a study of six invented pairs: study.html and key.json."""
    studies = tuple(
        Study(id=f"s{number}", images=(), findings=f"{HOSTILE} {LONG}", split="test") for number in range(STUDIES)
    )
    write_manifest(tmp_path / "data.parquet", Manifest(studies=studies, provenance={"terms": "invented"}))
    for name in ("first", "second"):
        lines = [json.dumps({"id": one.id, "report": f"{name} {one.id} {HOSTILE} {LONG}"}) for one in studies]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl", "--data", tmp_path / "data.parquet"]
    out = ["--out", tmp_path / "study.html", "--key", tmp_path / "key.json"]
    rayscribe("reader-study", *files, *out, "--studies", STUDIES)
    return tmp_path


@pytest.fixture
def page(browser: Any, study: Path) -> Iterator[Any]:
    """The page as a reader opens it. Fails when a script fails or when anything but the file itself is asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, asked, failed = context.new_page(), [], []
    context.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: failed.append(str(error)))
    opened.goto((study / "study.html").as_uri())
    yield opened
    context.close()
    assert not failed
    assert {url for url in asked if not url.startswith(("blob:", "data:"))} == {(study / "study.html").as_uri()}


def start(page: Any, reader: str = "AB") -> None:
    page.get_by_label("Your name or initials").fill(reader)
    page.keyboard.press("Enter")
    page.locator("#work").wait_for()


def heading(page: Any) -> str:
    return page.locator(".pair:visible h2").inner_text()


def vote_by_keys(page: Any, keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        page.keyboard.press("ArrowRight")


def saved(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_votes_by_keyboard_come_out_unblinded_through_both_formats(
    page: Any, study: Path, rayscribe: Callable[..., str]
) -> None:
    key = json.loads((study / "key.json").read_text())
    for reader, wishes, button in (("AB", "ffffso", "Save as JSON"), ("Zoë M.", "ffossf", "Save as CSV")):
        start(page, reader)
        keys = []
        for item, wish in zip(key["items"], wishes):
            is_a = (item["A"] == "first") == (wish == "f")
            keys.append("s" if wish == "s" else "a" if is_a else "3")
        vote_by_keys(page, "".join(keys))
        assert page.locator("#count").inner_text() == "6 of 6 answered"
        assert page.locator("#progress").get_attribute("max") == "6"
        saved(page, button, study)
        assert page.locator("#unsaved").inner_text() == ""
        page.get_by_role("button", name="Another reader").click()
    files = [study / f"votes-{key['study']}-{name}" for name in ("AB.json", "Zoë-M-.csv")]
    printed = rayscribe("reader-study", "score", study / "key.json", *files)
    assert "  AB: 4 / 1 / 1; first 80.0 % of 5 decided" in printed
    assert "  Zoë M.: 3 / 2 / 1; first 75.0 % of 4 decided" in printed
    assert "agreement on the 6 pairs that all 2 readers answered: 50.0 %" in printed


def test_progress_survives_a_reload_and_belongs_to_its_reader(page: Any) -> None:
    start(page)
    vote_by_keys(page, "123")
    page.get_by_label("Comment on study 4").fill("later")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    assert page.get_by_label("Your name or initials").input_value() == "AB"
    start(page)
    assert page.locator("#count").inner_text() == "3 of 6 answered"
    assert heading(page) == "Study 4 of 6"
    assert page.get_by_label("Comment on study 4").input_value() == "later"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".pair:visible input:checked").get_attribute("value") == "B"
    page.get_by_role("button", name="Another reader").click()
    start(page, "CD")
    assert page.locator("#count").inner_text() == "0 of 6 answered"
    assert page.locator("input[type=radio]:checked").count() == 0


def test_arrows_move_and_the_first_unanswered_is_found(page: Any) -> None:
    start(page)
    assert page.get_by_role("button", name="Previous").is_disabled()
    vote_by_keys(page, "12")
    page.locator(".pair:visible").get_by_label("About the same").check()
    page.keyboard.press("ArrowRight")  # from inside the radio buttons: moves, and leaves the vote
    assert heading(page) == "Study 4 of 6"
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    assert page.get_by_role("button", name="Next").is_disabled()
    page.locator(".pair:visible").get_by_label("A is better").check()
    page.keyboard.press("ArrowRight")
    assert page.locator(".pair:visible input:checked").get_attribute("value") == "A"
    page.get_by_role("button", name="First unanswered").click()
    assert heading(page) == "Study 4 of 6"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".pair:visible input:checked").get_attribute("value") == "same"
    assert page.evaluate("document.activeElement.textContent") == "Study 3 of 6"


def test_typing_a_comment_is_no_vote_and_keys_can_be_switched_off(page: Any) -> None:
    start(page)
    page.get_by_label("Comment on study 1").press_sequentially("a 1 b")
    assert page.locator("#count").inner_text() == "0 of 6 answered"
    page.get_by_label("Keys:").uncheck()
    page.keyboard.press("1")
    assert page.locator("#count").inner_text() == "0 of 6 answered"
    assert page.locator("#unsaved").inner_text() == "Comments without a vote, which no file will hold: 1."


def test_comments_break_no_file(page: Any, study: Path) -> None:
    comments = ['=HYPERLINK("x")', "two\nlines, and; 'quotes\" ", " +1", "'t is", "\ttab", "\ufeff=\x85 肺"]
    key = json.loads((study / "key.json").read_text())
    start(page)
    for number, comment in enumerate(comments, start=1):
        page.get_by_label(f"Comment on study {number}").fill(comment)
        page.get_by_role("button", name="Save as CSV").focus()
        page.keyboard.press("1")
        page.keyboard.press("ArrowRight")
    table, document = saved(page, "Save as CSV", study), saved(page, "Save as JSON", study)
    for path in (table, document):
        found = read_ballot(path, key)
        assert [found.comments[item["item"]] for item in key["items"]] == comments
    with open(table, newline="", encoding="utf-8-sig") as file:
        cells = [row["comment"] for row in csv.DictReader(file)]
    assert cells == [comment if comment[:3] in ("two", "\ufeff=\x85") else f"'{comment}" for comment in comments]


def test_a_reader_is_warned_before_leaving_with_unsaved_votes(page: Any, study: Path) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    start(page)
    page.keyboard.press("1")
    assert page.locator("#unsaved").inner_text() == "Not saved to a file yet: votes of AB."
    page.reload()
    assert asked == ["beforeunload"]
    start(page)
    saved(page, "Save as JSON", study)
    page.reload()
    assert asked == ["beforeunload"]


def test_the_warning_covers_every_reader_of_the_visit(page: Any, study: Path) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    start(page)
    page.keyboard.press("1")
    page.get_by_role("button", name="Another reader").click()
    start(page, "CD")
    page.keyboard.press("2")
    assert page.locator("#unsaved").inner_text() == "Not saved to a file yet: votes of AB, CD."
    saved(page, "Save as JSON", study)
    assert page.locator("#unsaved").inner_text() == "Not saved to a file yet: votes of AB."
    page.reload()
    assert asked == ["beforeunload"]


def test_a_comment_without_a_vote_is_warned_of(page: Any, study: Path) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    start(page)
    page.keyboard.press("1")
    page.get_by_label("Comment on study 1").fill("with its vote")
    saved(page, "Save as JSON", study)
    page.keyboard.press("ArrowRight")
    page.get_by_label("Comment on study 2").fill("alone")
    page.reload()
    assert asked == ["beforeunload"]


def test_a_key_that_is_held_down_moves_once(page: Any) -> None:
    start(page)
    page.keyboard.down("ArrowRight")
    page.keyboard.down("ArrowRight")  # as a key that is held down repeats
    assert heading(page) == "Study 2 of 6"
    page.keyboard.up("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert heading(page) == "Study 3 of 6"


def test_a_name_with_votes_is_asked_about(page: Any) -> None:
    field, known = page.get_by_label("Your name or initials"), page.locator("#known")
    assert page.locator("#go").inner_text() == "Start"
    start(page, "Zoe\u0308")
    vote_by_keys(page, "1")
    page.get_by_role("button", name="Another reader").click()
    assert field.input_value() == ""
    assert page.locator("#go").inner_text() == "Start"
    field.fill("zoë")
    assert page.locator("#go").inner_text() == "Go on with 1 vote"
    assert known.inner_text() == "Kept here: 1 vote of zoë. Not yours? Enter another name."
    field.fill("zoë 2")
    assert (page.locator("#go").inner_text(), known.inner_text()) == ("Start", "")
    start(page, "zoë")
    assert page.locator("#count").inner_text() == "1 of 6 answered"


def test_without_a_vote_nothing_is_saved(page: Any) -> None:
    start(page)
    page.get_by_role("button", name="Save as JSON").click()
    assert page.get_by_role("status").inner_text() == "There is no vote to save yet."


def test_a_reader_needs_a_name(page: Any) -> None:
    for name in ("   ", "\u200c"):
        page.get_by_label("Your name or initials").fill(name)
        page.keyboard.press("Enter")
        assert page.locator("#work").is_hidden()
    for given, kept in (("  A  \x07 B ", "A B"), ("علی\u200cرضا", "علی\u200cرضا"), ("Zoe\u0308", "Zoë")):
        start(page, given)
        assert page.locator("#who").text_content() == f"Reader: {kept}"
        page.get_by_role("button", name="Another reader").click()


def test_hostile_text_is_shown_as_text(page: Any, study: Path) -> None:
    start(page)
    item = json.loads((study / "key.json").read_text())["items"][0]
    shown = page.locator(".pair:visible .report").evaluate_all("all => all.map(one => one.textContent)")
    sides = [f"{item[side]} {item['study']} {HOSTILE} {LONG}" for side in ("A", "B")]
    assert shown == [f"{HOSTILE} {LONG}", *sides]
    assert page.title() == "Reader study"


def test_the_browser_lets_nothing_out(page: Any) -> None:
    refused = page.evaluate(
        """async () => {
            return new Promise((done) => {
                document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
                fetch("https://example.invalid/").catch(() => setTimeout(() => done("not refused"), 2000));
            });
        }"""
    )
    assert refused == "connect-src"


def test_where_nothing_can_be_kept_the_page_says_so_and_works(browser: Any, study: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    page.goto((study / "study.html").as_uri())
    start(page)
    assert "This browser keeps nothing" in page.locator("#nothing-kept").inner_text()
    vote_by_keys(page, "12")
    page.get_by_role("button", name="Another reader").click()
    start(page)
    votes = json.loads(saved(page, "Save as JSON", study).read_text())["votes"]
    assert [vote["vote"] for vote in votes] == ["A", "same"]
    context.close()


def test_where_the_browser_is_full_votes_of_this_visit_survive_another_reader(page: Any, study: Path) -> None:
    start(page)
    vote_by_keys(page, "1")
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }; }")
    vote_by_keys(page, "23")
    assert page.locator("#nothing-kept").is_visible()
    page.get_by_role("button", name="Another reader").click()
    start(page, "CD")
    vote_by_keys(page, "3")
    page.get_by_role("button", name="Another reader").click()
    page.get_by_label("Your name or initials").fill("AB")
    assert page.locator("#go").inner_text() == "Go on with 3 votes"
    start(page)
    votes = json.loads(saved(page, "Save as JSON", study).read_text())["votes"]
    assert [vote["vote"] for vote in votes] == ["A", "same", "B"]


def luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 18, 18)")])
def test_what_is_pressed_or_filled_in_has_an_edge_that_is_seen(page: Any, scheme: str, ground: str) -> None:
    page.emulate_media(color_scheme=scheme)
    start(page)
    page.locator(".pair:visible").get_by_label("B is better").check()
    assert page.locator("#status").evaluate("one => getComputedStyle(one).backgroundColor") == ground  # Canvas
    edges = page.locator("button, input[type=text], textarea, .choices label").evaluate_all(
        "all => [...new Set(all.map(one => getComputedStyle(one).borderTopColor))]"
    )
    assert len(edges) == 2
    for edge in edges:
        low, high = sorted([luminance(edge), luminance(ground)])
        assert edge.startswith("rgb("), "opaque"
        assert (high + 0.05) / (low + 0.05) >= 3


def test_the_page_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    widths = [page.evaluate("document.documentElement.scrollWidth")]
    start(page, "A reader with a long name, as long as the field takes at all")
    page.get_by_label("Comment on study 1").fill("x" * 200)
    page.get_by_label("B is better").locator("visible=true").check()
    widths.append(page.evaluate("document.documentElement.scrollWidth"))
    assert widths == [360, 360]
    for name in ("Next", "Save as JSON"):
        assert page.get_by_role("button", name=name).bounding_box()["height"] >= 40


def test_every_control_has_a_name(page: Any) -> None:
    start(page)
    unnamed = page.locator("button, input, textarea, progress").evaluate_all(
        "all => all.filter(one => !one.textContent.trim() && !(one.labels && one.labels.length)).map(one => one.outerHTML)"
    )
    assert unnamed == []
    page.keyboard.press("2")
    assert page.get_by_role("status").inner_text() == "Study 1: about the same. 1 of 6 answered."
    assert page.get_by_role("group", name="Which draft describes study 1 better?").is_visible()
