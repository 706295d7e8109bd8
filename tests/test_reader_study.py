"""`reader-study` and `reader-study score` as a user types them; the page in a browser is tested in tests/pages."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.reader_votes import read_ballot
from rayscribe.study import Study

Run = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A manifest of 24 invented studies without images, every third normal."""
    studies = tuple(
        Study(
            id=f"patient{number:02d}",
            images=(),
            findings=f"Opacity number {number}." if number < 23 else "",
            split="test",
            problems=("normal",) if number % 3 == 0 else ("opacity",),
        )
        for number in range(24)
    )
    write_manifest(tmp_path / "data.parquet", Manifest(studies=studies, provenance={"terms": "do not hand on"}))
    return tmp_path / "data.parquet"


def predictions(path: Path, text: Callable[[int], str]) -> Path:
    path.write_text("".join(json.dumps({"id": f"patient{n:02d}", "report": text(n)}) + "\n" for n in range(24)))
    return path


@pytest.fixture
def make(rayscribe: Run, data: Path, tmp_path: Path) -> Run:
    """Makes a study of two systems, `falcon` and `osprey`; they agree on study 1."""
    first = predictions(tmp_path / "falcon.jsonl", lambda n: "Same." if n == 1 else f"First of {n}.")
    second = predictions(tmp_path / "osprey.jsonl", lambda n: "  Same.\n" if n == 1 else f"Second of {n}.")

    def run(*options: object, name: str = "study", code: int = 0) -> str:
        out = ["--out", tmp_path / f"{name}.html", "--key", tmp_path / f"{name}.json"]
        return rayscribe("reader-study", first, second, "--data", data, *out, *options, code=code)

    return run


def key_of(folder: Path, name: str = "study") -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def ballot(path: Path, key: dict[str, Any], reader: str, wishes: str, **changes: str) -> Path:
    """Votes as the page exports them. A wish an item: f for the first system, s for the same, o for the other."""
    sides = {"s": lambda item: "same", "f": lambda item: side(item, 0), "o": lambda item: side(item, 1)}

    def side(item: dict[str, Any], system: int) -> str:
        return "A" if item["A"] == key["names"][system] else "B"

    rows = [
        {"item": item["item"], "number": item["number"], "vote": sides[wish](item), "comment": ""} | changes
        for item, wish in zip(key["items"], wishes)
    ]
    if path.suffix == ".json":
        head = {"format": "rayscribe-votes-1", "study": key["study"], "reader": reader}
        path.write_text(json.dumps(head | {"votes": rows}))
    else:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ["study", "reader", "number", "item", "vote", "comment"])
            writer.writeheader()
            writer.writerows({"study": key["study"], "reader": reader} | row for row in rows)
    return path


@pytest.mark.parametrize("verb", [["reader-study"], ["reader-study", "score"]])
def test_both_forms_explain_themselves(rayscribe: Run, monkeypatch: pytest.MonkeyPatch, verb: list[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = rayscribe(*verb, "--help")
    assert f"usage: rayscribe {' '.join(verb)}" in text
    assert max(len(line) for line in text.splitlines()[1:]) <= 80


def test_the_page_tells_neither_systems_nor_studies(make: Run, tmp_path: Path) -> None:
    make("--studies", 10, "--names", "Peregrine", "Kestrel")
    page, key = (tmp_path / "study.html").read_text(), key_of(tmp_path)
    secret = [
        "falcon",
        "osprey",
        "peregrine",
        "kestrel",
        "patient0",
        "patient1",
        key["data_digest"],
        str(tmp_path).lower(),
    ]
    secret += [one["sha256"] for one in key["predictions"]]
    assert not [word for word in secret if word in page.lower()]
    assert key["study"] in page
    assert "terms of the data: do not hand on" in page
    assert "Not a medical device" in page
    shown = re.findall(r'data-item="(\w+)".*?Draft A</h3><p class="report">(.*?)</p>.*?Draft B</h3><p', page, re.DOTALL)
    assert [token for token, _ in shown] == [item["item"] for item in key["items"]]
    for item, (_, text) in zip(key["items"], shown):
        number, name = int(item["study"][-2:]), "First" if item["A"] == "Peregrine" else "Second"
        assert html.unescape(text) == f"{name} of {number}."


def test_the_page_can_load_and_send_nothing(make: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    page = (tmp_path / "study.html").read_text()
    assert "default-src 'none'; script-src 'sha256-" in page
    assert not re.findall(r"https?://|@import|url\(", page)
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script>")


def test_half_of_the_studies_are_normal_and_sides_are_balanced_in_both_halves(make: Run, tmp_path: Path) -> None:
    make("--studies", 12)
    items = key_of(tmp_path)["items"]
    for normal in (True, False):
        part = [item for item in items if item["normal"] is normal]
        assert len(part) == 6
        assert sum(item["A"] == "falcon" for item in part) == 3
    assert [item["number"] for item in items] == list(range(1, 13))
    assert len({item["normal"] for item in items[:6]} | {item["normal"] for item in items[6:]}) == 2
    assert len({item["item"] for item in items}) == len({item["study"] for item in items}) == 12


def test_when_one_kind_has_too_few_the_other_fills_up(make: Run, tmp_path: Path) -> None:
    assert "drew 8 studies coded normal and 12 others; one kind has too few" in make("--studies", 20)
    assert sum(item["normal"] for item in key_of(tmp_path)["items"]) == 8


def test_a_seed_repeats_a_study_and_another_seed_makes_another(make: Run, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        make("--studies", 10, "--seed", seed, name=name)
    one, two, three = (key_of(tmp_path, name) for name in ("one", "two", "three"))
    assert one == two
    assert (tmp_path / "one.html").read_text() == (tmp_path / "two.html").read_text()
    assert one["study"] != three["study"]
    assert [item["study"] for item in one["items"]] != [item["study"] for item in three["items"]]


def test_equal_texts_are_left_out_and_counted_unless_wanted(make: Run, tmp_path: Path) -> None:
    printed = make("--studies", 22)
    assert "left out: 1 without the section findings" in printed
    assert "left out: 1 where both systems wrote the same text" in printed
    assert "patient01" not in {item["study"] for item in key_of(tmp_path)["items"]}
    assert "wrote the same text" not in make("--studies", 23, "--keep-identical", name="all")
    assert "patient01" in {item["study"] for item in key_of(tmp_path, "all")["items"]}


def test_the_reference_can_be_kept_back(make: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    assert "Opacity number" in (tmp_path / "study.html").read_text()
    make("--studies", 4, "--no-reference", "--worklist", tmp_path / "list.csv", name="bare")
    page = (tmp_path / "bare.html").read_text()
    assert "Opacity number" not in page
    assert "open number 3 of the list" in page
    with open(tmp_path / "list.csv", newline="") as file:
        rows = [(int(row["number"]), row["study"]) for row in csv.DictReader(file)]
    assert rows == [(item["number"], item["study"]) for item in key_of(tmp_path, "bare")["items"]]


def test_capitals_that_unblind_are_warned_of_and_cleaned(make: Run, tmp_path: Path) -> None:
    predictions(tmp_path / "falcon.jsonl", lambda n: f"lower {n} .")
    assert "which unblinds" in make("--studies", 4)
    printed = make("--studies", 4, "--cleaning", "r2gen-iu", name="clean")
    assert "which unblinds" not in printed
    page = (tmp_path / "clean.html").read_text()
    assert re.search(r'<p class="report">second of \d+ \.</p>', page)
    assert re.search(r'<p class="report soft">opacity number \d+ \.</p>', page)


def test_images_are_embedded_where_the_terms_allow_it(rayscribe: Run, world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    free = Manifest(studies=manifest.studies, provenance=manifest.provenance | {"images_may_be_shown": True})
    write_manifest(tmp_path / "free.parquet", free)
    for name in ("a", "b"):
        lines = [json.dumps({"id": study.id, "report": f"{name} of it"}) for study in manifest.studies]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--studies", 3]
    out = ["--out", tmp_path / "s.html", "--key", tmp_path / "k.json"]
    printed = rayscribe("reader-study", *files, "--data", tmp_path / "free.parquet", *out, "--images")
    assert "drew 3 at random: 0 of 12 studies are coded" in printed
    page = (tmp_path / "s.html").read_text()
    assert page.count('src="data:image/png;base64,') == 6
    assert "Holds report text and images" in page
    assert "CXR" not in page
    (tmp_path / "k.json").unlink()
    message = rayscribe("reader-study", *files, "--data", world, *out, "--images", code=1)
    assert "do not allow copies of its images: leave out --images" in message
    assert not (tmp_path / "k.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--studies", 50], "22 studies can be compared, 50 are asked for; give --studies 22"),
        (["--studies", 0], "at least 1 study"),
        (["--seed", -1], "no negative seed"),
        (["--split", "train"], "no study in split 'train'"),
        (["--names", "one", "one "], "tell them apart with --names"),
        (["--no-reference"], "nothing to judge by"),
        (["--section", "impression"], "all were left out"),
        (["--worklist", "{folder}/study.html"], "must be different files"),
    ],
)
def test_a_study_that_cannot_be_made_leaves_no_file(
    make: Run, tmp_path: Path, options: list[object], message: str
) -> None:
    filled = [str(option).format(folder=tmp_path) for option in options]
    assert message in make(*filled, code=1)
    assert not (tmp_path / "study.html").exists()
    assert not (tmp_path / "study.json").exists()


def test_files_that_are_no_comparison_are_refused(rayscribe: Run, make: Run, data: Path, tmp_path: Path) -> None:
    out = ["--data", data, "--out", tmp_path / "x.html", "--key", tmp_path / "x.json"]
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "falcon.jsonl").read_bytes())
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "stranger", "report": "x"}\n')
    for second, message in (("copy", "are the same file"), ("other", "the split's ids look like patient00")):
        files = [tmp_path / "falcon.jsonl", tmp_path / f"{second}.jsonl"]
        assert message in rayscribe("reader-study", *files, *out, code=1)


def test_a_key_is_never_overwritten_and_goes_when_the_page_fails(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    before = (tmp_path / "study.json").read_bytes()
    assert "study.json: there already" in make("--studies", 5, code=1)
    assert (tmp_path / "study.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    message = make("--studies", 4, "--out", tmp_path / "file" / "page.html", name="new", code=1)
    assert "mend it and repeat" in message
    assert not (tmp_path / "new.json").exists()


def test_votes_of_two_readers_are_unblinded_counted_and_tested(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 12)
    key = key_of(tmp_path)
    one = ballot(tmp_path / "one.json", key, "AB", "f" * 8 + "s" * 2 + "o" * 2)
    two = ballot(tmp_path / "two.csv", key, "Zoë", "f" * 6 + "s" * 2 + "o" * 2)
    printed = rayscribe("reader-study", "score", tmp_path / "study.json", one, two, "--json", tmp_path / "out.json")
    assert "votes for falcon / same / osprey" in printed
    assert "  AB: 8 / 2 / 2; falcon 80.0 % of 10 decided [49.0, 94.3], p 0.109, ties left out: 2" in printed
    assert "  Zoë: 6 / 2 / 2; falcon 75.0 % of 8 decided" in printed
    assert (
        "  all votes together: 14 / 4 / 4; falcon 77.8 % of 18 decided (votes on one pair are not independent"
        in printed
    )
    assert "  majority of the readers, pair by pair: 6 / 0 / 2, no majority in 4; falcon 75.0 % of 8 decided" in printed
    assert "Zoë answered 10 of 12 pairs; 2 are missing" in printed
    assert "AB answered all of 12 pairs" in printed
    assert "agreement on the 10 pairs that all 2 readers answered: 60.0 %" in printed
    assert printed.rstrip().endswith("Not a medical device; not for clinical use.")
    result = json.loads((tmp_path / "out.json").read_text())
    assert {part: facts["items"] for part, facts in result["parts"].items()} == {"all": 12, "normal": 6, "abnormal": 6}
    for name in ("first", "same", "second"):
        parts = [result["parts"][part]["readers"]["AB"][name] for part in ("all", "normal", "abnormal")]
        assert parts[0] == parts[1] + parts[2]
    assert result["votes"][0]["votes"] == {"AB": "first", "Zoë": "first"}
    assert result["agreement"]["cohen_kappa"] < result["agreement"]["cohen_kappa_linear"]


def test_three_readers_have_fleiss_kappa_on_what_all_answered(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 6)
    key = key_of(tmp_path)
    files = [
        ballot(tmp_path / f"{reader}.json", key, reader, wishes)
        for reader, wishes in (("r1", "ffffoo"), ("r2", "ffffoo"), ("r3", "ffffo"))
    ]
    printed = rayscribe("reader-study", "score", tmp_path / "study.json", *files)
    assert (
        "on the 5 pairs that all 3 readers answered: 100.0 % of two readers' votes are equal; Fleiss' kappa 1"
        in printed
    )
    assert "majority of the readers, pair by pair: 4 / 0 / 2; falcon 66.7 % of 6 decided" in printed


def test_what_cannot_be_computed_is_said_in_words(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 6)
    key = key_of(tmp_path)
    one = ballot(tmp_path / "one.json", key, "one", "ssssss")
    score = ["reader-study", "score", tmp_path / "study.json"]
    printed = rayscribe(*score, one)
    assert "one: 0 / 6 / 0; no vote is decided, so there is neither a share nor a test" in printed
    assert "one reader, so there is none to state" in printed
    printed = rayscribe(*score, one, ballot(tmp_path / "two.json", key, "two", "ssssss"), "--json", tmp_path / "o.json")
    assert "kappa is not defined, because all votes are the same" in printed
    assert json.loads((tmp_path / "o.json").read_text())["agreement"]["cohen_kappa"] is None
    apart = ballot(tmp_path / "two.json", key | {"items": key["items"][3:]}, "two", "sss")
    half = ballot(tmp_path / "one.json", key, "one", "fff")
    printed = rayscribe(*score, half, apart)
    assert "no pair was answered by all readers" in printed
    assert "nan" not in printed.lower()


def test_cells_that_look_like_formulas_come_back_as_they_were_typed(make: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = key_of(tmp_path)
    for cell, typed in (
        ("'=1+1", "=1+1"),
        ("' -x", " -x"),
        ("''t is", "'t is"),
        ("'t is", "'t is"),
        ("a\n=b", "a\n=b"),
    ):
        path = ballot(tmp_path / "v.csv", key, "AB", "ffff", comment=cell)
        assert set(read_ballot(path, key).comments.values()) == {typed}
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",", ";"))  # as some spreadsheets save it
    assert len(read_ballot(path, key).votes) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vote": "C"}, "vote 1: the vote 'C' is none of A, same, B"),
        ({"item": "i0"}, "vote 1: the study has no item 'i0'"),
        ({"comment": 3}, "vote 1: study, reader, item, vote, comment must be texts"),
    ],
)
def test_a_malformed_vote_is_named(
    make: Run, rayscribe: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    make("--studies", 4)
    votes = ballot(tmp_path / "votes.json", key_of(tmp_path), "AB", "ffff", **changes)
    printed = rayscribe("reader-study", "score", tmp_path / "study.json", votes, code=1)
    assert f"votes.json, {message}" in printed


def test_votes_that_do_not_belong_together_are_refused(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    make("--studies", 5, name="other")
    key, other = key_of(tmp_path), key_of(tmp_path, "other")
    score = ["reader-study", "score", tmp_path / "study.json"]
    assert "name the readers' votes" in rayscribe(*score, code=1)
    strange = ballot(tmp_path / "strange.json", other, "AB", "fffff")
    assert f"the key is of {key['study']}" in rayscribe(*score, strange, code=1)
    one, same = ballot(tmp_path / "1.json", key, "AB", "ffff"), ballot(tmp_path / "2.csv", key, " ab ", "oooo")
    assert "are both of reader" in rayscribe(*score, one, same, code=1)
    assert "holds no vote" in rayscribe(*score, ballot(tmp_path / "3.json", key, "C", ""), code=1)
    assert "one named reader" in rayscribe(*score, ballot(tmp_path / "4.json", key, " ", "ffff"), code=1)
    twice = json.loads(one.read_text())
    twice["votes"].append(twice["votes"][0])
    (tmp_path / "5.json").write_text(json.dumps(twice))
    assert "stands twice" in rayscribe(*score, tmp_path / "5.json", code=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not votes of a reader study"),
        ('{"format": "rayscribe-votes-1", "votes": 3}', "holds no list of votes"),
        ('{"format": "rayscribe-votes-1", "votes": [3]}', "vote 1: not"),
        ("a,b\n1,2\n", "it lacks the column study"),
        ("study,reader,item,vote\na,b\n", "line 2: not as many fields"),
        ("", "it lacks the column study"),
    ],
)
def test_a_file_that_is_no_votes_is_refused(
    make: Run, rayscribe: Run, tmp_path: Path, content: str, message: str
) -> None:
    make("--studies", 4)
    (tmp_path / "votes").write_text(content)
    assert message in rayscribe("reader-study", "score", tmp_path / "study.json", tmp_path / "votes", code=1)


def test_a_key_that_was_changed_or_is_none_is_refused(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = key_of(tmp_path)
    votes = ballot(tmp_path / "votes.json", key, "AB", "ffff")
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(key | {"names": key["names"][::-1]}))
    assert "was changed after it was written" in rayscribe("reader-study", "score", changed, votes, code=1)
    assert "not the key of a reader study" in rayscribe("reader-study", "score", votes, votes, code=1)
    assert "no such key" in rayscribe("reader-study", "score", tmp_path / "none.json", votes, code=1)
    assert "no such votes file" in rayscribe("reader-study", "score", tmp_path / "study.json", "none.csv", code=1)
    changed.write_bytes(b"\xff\xfe{")
    assert "not JSON" in rayscribe("reader-study", "score", changed, votes, code=1)
