"""`reader-study` and `reader-study score` as a user types them; the page in a browser is tested in tests/pages."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rayscribe.cli import reader_study as cli_reader_study
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.reader_study import study as reader_study
from rayscribe.reader_study import votes as reader_votes
from rayscribe.reader_study.votes import read_ballot
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
    draft = 'Draft {}</h3><p class="report">(.*?)</p>'
    shown = re.findall(rf'data-item="(\w+)".*?{draft.format("A")}.*?{draft.format("B")}', page, re.DOTALL)
    assert [token for token, _, _ in shown] == [item["item"] for item in key["items"]]
    for item, (_, *texts) in zip(key["items"], shown):
        words = {"Peregrine": "First", "Kestrel": "Second"}
        expected = [f"{words[item[side]]} of {int(item['study'][-2:])}." for side in ("A", "B")]
        assert [html.unescape(text) for text in texts] == expected


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
    assert len({item["item"] for item in items}) == len({item["study"] for item in items}) == 12


def test_neither_place_nor_side_follows_from_what_came_before(make: Run, tmp_path: Path) -> None:
    for seed in range(3):
        make("--studies", 12, "--seed", seed, name=f"s{seed}")
        items = key_of(tmp_path, f"s{seed}")["items"]
        kinds, sides = [[item[name] for item in items] for name in ("normal", "A")]
        assert kinds not in ([True] * 6 + [False] * 6, [False] * 6 + [True] * 6)
        assert any(one == two for one, two in pairwise(sides))  # drawn A, B, A, B: shown in another order


def test_either_system_can_be_a_in_the_first_normal_study(make: Run, tmp_path: Path) -> None:
    for seed in range(8):
        make("--studies", 2, "--seed", seed, name=f"s{seed}")
    keys = [key_of(tmp_path, f"s{seed}") for seed in range(8)]
    assert {item["A"] for key in keys for item in key["items"] if item["normal"]} == {"falcon", "osprey"}


def test_one_letter_in_a_file_makes_another_draw(make: Run, tmp_path: Path) -> None:
    make("--studies", 22)
    predictions(tmp_path / "falcon.jsonl", lambda n: "Same!" if n == 23 else "Same." if n == 1 else f"First of {n}.")
    make("--studies", 22, name="other")
    one, two = (key_of(tmp_path, name)["items"] for name in ("study", "other"))
    assert {item["study"] for item in one} == {item["study"] for item in two}
    for name in ("study", "item"):
        assert [item[name] for item in one] != [item[name] for item in two]
    sides = [{item["study"]: item["A"] for item in items} for items in (one, two)]
    assert sides[0] != sides[1]


def test_tokens_tell_neither_the_number_nor_the_draw(make: Run, tmp_path: Path) -> None:
    seen: set[int] = set()
    for seed in range(4):
        make("--studies", 12, "--seed", seed, name=f"s{seed}")
        make("--studies", 12, "--seed", seed, "--keep-identical", name=f"t{seed}")  # one study more: another draw
        one, two = (key_of(tmp_path, f"{name}{seed}")["items"] for name in "st")
        assert [item["study"] for item in one] != [item["study"] for item in two]
        assert [item["item"] for item in one] == [item["item"] for item in two]
        tokens = [int(item["item"][1:], 16) for item in one]
        assert tokens not in (sorted(tokens), sorted(tokens)[::-1])
        assert max(tokens) > 2**28
        assert not seen & set(tokens)
        seen |= set(tokens)


def test_one_study_is_drawn_of_a_patient(make: Run, data: Path, tmp_path: Path) -> None:
    assert "does not name every study's patient" in make("--studies", 4)
    old = read_manifest(data)
    studies = tuple(replace(study, subject=f"p{number // 2}") for number, study in enumerate(old.studies))
    write_manifest(data, Manifest(studies=studies, provenance=old.provenance))
    assert "one study a patient; left out: 10 further studies of the same patients" in make("--studies", 12, name="all")
    drawn = [int(item["study"][-2:]) // 2 for item in key_of(tmp_path, "all")["items"]]
    assert len(set(drawn)) == len(drawn) == 12
    assert "12 studies can be compared, but 13 were requested" in make("--studies", 13, name="more", code=1)


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


def test_a_lost_key_is_made_again_under_other_names_and_by_another_version(
    make: Run, rayscribe: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("--studies", 6)
    votes = ballot(tmp_path / "votes.json", key_of(tmp_path), "AB", "ffffoo")
    monkeypatch.setattr(reader_study, "__version__", "9.9")
    make("--studies", 6, "--names", "Peregrine", "Kestrel", name="again")
    lost, again = key_of(tmp_path), key_of(tmp_path, "again")
    assert lost["study"] == again["study"]
    assert lost["digest"] != again["digest"]
    printed = rayscribe("reader-study", "score", tmp_path / "again.json", votes)
    assert "AB: 4 / 0 / 2; Peregrine 66.7 %" in printed
    make("--studies", 6, "--no-reference", "--worklist", tmp_path / "list.csv", name="bare")
    assert key_of(tmp_path, "bare")["study"] != lost["study"]


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("second of {}.", "with a capital letter are 100 % of falcon's and 0 % of osprey's"),
        ("Second of {} .", "with a space before a full stop are 0 % of falcon's and 100 % of osprey's"),
        ("Second <unk> of {}.", "with <unk> are 0 % of falcon's and 100 % of osprey's"),
        ("Second of {}", "without a final full stop are 0 % of falcon's and 100 % of osprey's"),
        ("Second\nof {}.", "with a line break are 0 % of falcon's and 100 % of osprey's"),
    ],
)
def test_habits_that_unblind_are_named(make: Run, tmp_path: Path, text: str, words: str) -> None:
    assert "WARNING" not in make("--studies", 4, name="before")
    predictions(tmp_path / "osprey.jsonl", text.format)
    printed = make("--studies", 4)
    assert f"WARNING  a name tag: reports {words}\n" in printed
    assert printed.count("WARNING") == 1
    assert "give --cleaning, or make the texts alike" in printed


def test_a_habit_of_few_reports_is_no_name_tag(make: Run, tmp_path: Path) -> None:
    predictions(tmp_path / "osprey.jsonl", lambda n: f"Second of {n}{'.' if n > 3 else ''}")
    assert "WARNING" not in make("--studies", 4)


def test_cleaning_takes_capitals_and_leaves_what_it_cannot_mend(make: Run, tmp_path: Path) -> None:
    predictions(tmp_path / "falcon.jsonl", lambda n: f"lower {n} .")
    assert "with a capital letter are 0 % of falcon's and 100 % of osprey's" in make("--studies", 4)
    assert "WARNING" not in make("--studies", 4, "--cleaning", "r2gen-iu", name="clean")
    page = (tmp_path / "clean.html").read_text()
    assert re.search(r'<p class="report">second of \d+ \.</p>', page)
    assert re.search(r'<p class="report soft">opacity number \d+ \.</p>', page)
    predictions(tmp_path / "falcon.jsonl", lambda n: f"lower <unk> {n} .")
    printed = make("--studies", 4, "--cleaning", "r2gen-iu", name="unknown")
    assert "reports with <unk> are 100 % of falcon's" in printed
    assert "--cleaning leaves it" in printed


def test_both_files_must_be_of_the_section_and_only_with_cleaning_of_one_cleaning(make: Run, tmp_path: Path) -> None:
    meta = tmp_path / "osprey.jsonl.meta.json"
    meta.write_text(json.dumps({"section": "findings", "cleaning": "r2gen-mimic"}))
    make("--studies", 4)
    message = make("--studies", 4, "--cleaning", "r2gen-iu", name="clean", code=1)
    assert "osprey.jsonl: written for cleaning r2gen-mimic, not r2gen-iu" in message
    meta.write_text(json.dumps({"section": "impression"}))
    message = make("--studies", 4, name="other", code=1)
    assert "osprey.jsonl: written for section impression, not findings; give --section impression" in message


def png_chunks(picture: bytes) -> set[bytes]:
    kinds, at = set(), 8
    while at < len(picture):
        kinds.add(picture[at + 4 : at + 8])
        at += 12 + int.from_bytes(picture[at : at + 4], "big")
    return kinds


def test_images_are_embedded_where_the_terms_allow_it(rayscribe: Run, world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    blind = next(study.id for study in manifest.split("test"))
    studies = tuple(
        replace(one, images=(), views=(), sha256=()) if one.id == blind else one for one in manifest.studies
    )
    free = Manifest(studies=studies, provenance=manifest.provenance | {"images_may_be_shown": True})
    write_manifest(tmp_path / "free.parquet", free)
    for name in ("a", "b"):
        lines = [json.dumps({"id": study.id, "report": f"{name} of it"}) for study in manifest.studies]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--images"]
    out = ["--out", tmp_path / "s.html", "--key", tmp_path / "k.json"]
    printed = rayscribe("reader-study", *files, "--studies", 11, "--data", tmp_path / "free.parquet", *out)
    assert "left out: 1 without images" in printed
    assert "drew 11 at random: 0 of 11 studies are coded" in printed
    assert blind not in {item["study"] for item in key_of(tmp_path, "k")["items"]}
    page = (tmp_path / "s.html").read_text()
    source = re.compile(r'src="data:image/png;base64,([^"]*)"')
    pictures = source.findall(page)
    assert len(pictures) == 22
    assert {kind for one in pictures for kind in png_chunks(base64.b64decode(one))} == {b"IHDR", b"IDAT", b"IEND"}
    assert "Holds report text and images" in page
    assert "CXR" not in source.sub("", page)
    out = ["--out", tmp_path / "t.html", "--key", tmp_path / "l.json"]
    bare = [*files, "--no-reference", "--data", tmp_path / "free.parquet", *out]
    assert "11 studies can be compared, but 12 were requested" in rayscribe(
        "reader-study", *bare, "--studies", 12, code=1
    )
    message = rayscribe("reader-study", *files, "--data", world, *out, code=1)
    assert "do not allow copies of its images: leave out --images" in message
    assert not (tmp_path / "l.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--studies", 50], "22 studies can be compared, but 50 were requested; give --studies 22"),
        (["--studies", 0], "at least 1 study"),
        (["--seed", -1], "a seed of 0 or more"),
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


def test_nothing_is_overwritten_neither_what_is_read_nor_what_is_there(make: Run, data: Path, tmp_path: Path) -> None:
    make("--studies", 4)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for option in ("--out", "--key", "--worklist"):
        for path in (tmp_path / "falcon.jsonl", tmp_path / "." / "osprey.jsonl", data):
            message = make("--studies", 5, option, path, name="new", code=1)
            assert f"{path.name}: is read by this study; name another {option}" in message
        message = make("--studies", 5, option, tmp_path / "study.json", name="new", code=1)
        assert f"study.json: already exists; {'without it' if option == '--key' else 'readers may'}" in message
        assert f"Name another {option}, or delete it" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_of_two_runs_that_name_one_key_the_second_fails(
    make: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cli_reader_study, "_check_targets", lambda wanted: None
    )  # as if both had looked before either wrote
    make("--studies", 4)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    message = make("--studies", 5, "--out", tmp_path / "other.html", code=1)
    assert "study.json: already exists" in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_fails_or_is_interrupted_leaves_no_file_and_claims_none(
    make: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    before = {path.name for path in tmp_path.iterdir()}
    options = ["--studies", 4, "--worklist", tmp_path / "list.csv"]
    assert "fix this and repeat" in make(*options, "--out", tmp_path / "file" / "page.html", code=1)
    assert {path.name for path in tmp_path.iterdir()} == before
    write_text = cli_reader_study.write_text

    for fault, last in ((KeyboardInterrupt, "study.html"), (ValueError, "study.html"), (ValueError, "list.csv")):

        def failing(path: Path, text: str, fault: type[BaseException] = fault, last: str = last) -> None:
            write_text(path, text)
            if path.name == last:
                raise fault("stop")

        monkeypatch.setattr(cli_reader_study, "write_text", failing)
        with pytest.raises((AssertionError, ValueError)):  # the command's exit code, or the fault itself
            make(*options)
        assert "wrote" not in capsys.readouterr().out
        assert {path.name for path in tmp_path.iterdir()} == before


def test_a_text_that_no_file_can_hold_is_refused_by_file_and_study(make: Run, tmp_path: Path) -> None:
    predictions(tmp_path / "osprey.jsonl", lambda n: "Broken \ud83d." if n == 5 else f"Second of {n}.")
    before = {path.name for path in tmp_path.iterdir()}
    message = make("--studies", 4, code=1)
    assert "osprey.jsonl, study patient05: character 8 is half of a surrogate pair" in message
    message = make("--studies", 4, "--names", "one", "t\udc80o", code=1)
    assert "'t\\udc80o': character 2 is half of a surrogate pair" in message
    assert "give other --names" in message
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_terms_and_whom_each_file_is_for_are_told_in_the_end(make: Run, tmp_path: Path) -> None:
    lines = make("--studies", 4, "--worklist", tmp_path / "list.csv").splitlines()
    assert "study.html for the readers; terms of the data: do not hand on." in lines[-4]
    assert lines[-3].endswith("list.csv, which study has which number, for the readers, too")
    assert lines[-2].endswith("study.json: keep it and the prediction files from the readers")


def test_votes_of_two_readers_are_unblinded_counted_and_tested(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 12)
    key = key_of(tmp_path)
    one = ballot(tmp_path / "one.json", key, "AB", "f" * 8 + "s" * 2 + "o" * 2)
    two = ballot(tmp_path / "two.csv", key, "Zoë", "f" * 6 + "s" * 2 + "o" * 2)
    printed = rayscribe("reader-study", "score", tmp_path / "study.json", one, two, "--json", tmp_path / "out.json")
    assert "votes for falcon / same / osprey" in printed
    assert "drawn from 24 studies that both files hold; left out as identical: 1" in printed
    assert (
        "  AB: 8 / 2 / 2; falcon 80.0 % of 10 decided [49.0, 94.3], p 0.109 (Holm 0.219), ties left out: 2" in printed
    )
    assert "  Zoë: 6 / 2 / 2; falcon 75.0 % of 8 decided [40.9, 92.9], p 0.289 (Holm 0.289), ties" in printed
    assert printed.count("Holm 0") == 2  # of all pairs, not of the parts
    assert (
        "  all votes together: 14 / 4 / 4; falcon 77.8 % of 18 decided (votes on one pair are not independent"
        in printed
    )
    assert "  majority on the 10 pairs that all answered: 6 / 0 / 0, no majority in 4; falcon 100.0 % of 6" in printed
    assert "Zoë answered 10 of 12 pairs; 2 are missing" in printed
    assert "AB answered all of 12 pairs" in printed
    assert "agreement on the 10 pairs that all 2 readers answered: 60.0 %" in printed
    assert printed.rstrip().endswith("Not a medical device; not for clinical use.")
    result = json.loads((tmp_path / "out.json").read_text())
    assert {part: facts["items"] for part, facts in result["parts"].items()} == {"all": 12, "normal": 6, "abnormal": 6}
    for name in ("first", "same", "second"):
        parts = [result["parts"][part]["readers"]["AB"][name] for part in ("all", "normal", "abnormal")]
        assert parts[0] == parts[1] + parts[2]
    assert result["drawn_from"] == {"held": 24, "identical": 1}
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
    assert "majority on the 5 pairs that all answered: 4 / 0 / 1; falcon 80.0 % of 5 decided" in printed


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
    assert "majority on the 0 pairs that all answered: 0 / 0 / 0; no vote is decided" in printed
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
        ("'\xa0=b", "'\xa0=b"),  # the page guards no cell that begins with a hard space
    ):
        path = ballot(tmp_path / "v.csv", key, "AB", "ffff", comment=cell)
        assert set(read_ballot(path, key).comments.values()) == {typed}
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",", ";"))  # as some spreadsheets save it
    assert len(read_ballot(path, key).votes) == 4


def test_page_and_score_guard_the_same_characters() -> None:
    script = files("rayscribe.pages").joinpath("reader_study.js").read_text(encoding="utf-8")
    guarded = re.search(r"return /\^(.*)\|\^(.*)/\.test\(text\)", script)
    assert guarded
    assert reader_votes._GUARD.pattern == f"^'(?={guarded[1]}|{guarded[2]})"


def test_emptied_rows_of_a_spreadsheet_are_skipped(make: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = key_of(tmp_path)
    path = ballot(tmp_path / "v.csv", key, "AB", "ffff")
    path.write_text(path.read_text(encoding="utf-8-sig") + ",,,,,\n, ,,,,\n,,\n,,,,,,,\n\n")
    assert len(read_ballot(path, key).votes) == 4


def test_names_are_read_as_the_page_keeps_them(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = key_of(tmp_path)
    for given, kept in (
        ("Zoe\u0308  M.", "Zoë M."),
        ("علی\u200cرضا", "علی\u200cرضا"),
        ("王 医生", "王 医生"),
        ("A\x07 \x1b B\ud800", "A B"),
    ):
        assert read_ballot(ballot(tmp_path / "v.json", key, given, "ffff"), key).reader == kept
    one = ballot(tmp_path / "1.json", key, "Zoe\u0308", "ffff")
    two = ballot(tmp_path / "2.csv", key, "ZOË", "oooo")
    message = rayscribe("reader-study", "score", tmp_path / "study.json", one, two, code=1)
    assert "are both from reader" in message
    assert "If they are two people, change `reader` in one of the files" in message


def test_half_a_surrogate_pair_in_a_comment_breaks_no_result(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    votes = ballot(tmp_path / "v.json", key_of(tmp_path), "AB", "ffff", comment="cut \ud83d")
    rayscribe("reader-study", "score", tmp_path / "study.json", votes, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["votes"][0]["comments"] == {"AB": "cut ?"}


def test_the_result_overwrites_neither_the_key_nor_votes(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = tmp_path / "study.json"
    votes = ballot(tmp_path / "v.json", key_of(tmp_path), "AB", "ffff")
    (tmp_path / "link.json").symlink_to(votes)
    before = key.read_bytes(), votes.read_bytes()
    for target in (key, votes, tmp_path / "x" / ".." / "v.json", tmp_path / "link.json"):
        message = rayscribe("reader-study", "score", key, votes, "--json", target, code=1)
        assert f"{target}: is the key or votes, which --json would overwrite" in message
    message = rayscribe("reader-study", "score", key, "none.csv", "--json", "none.csv", code=1)
    assert "would overwrite" in message  # before anything is read
    assert (key.read_bytes(), votes.read_bytes()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vote": "C"}, "vote 1: the vote 'C' is not one of A, same, B"),
        ({"item": "i0"}, "vote 1: the study has no item 'i0'"),
        ({"item": "x" * 30}, f"vote 1: the study has no item '{'x' * 20}'...; export"),
        ({"vote": "\x1b[2J"}, "vote 1: the vote '\\x1b[2J' is not one of"),
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
    assert "give the readers' votes" in rayscribe(*score, code=1)
    strange = ballot(tmp_path / "strange.json", other, "AB", "fffff")
    assert f"the key is for {key['study']}" in rayscribe(*score, strange, code=1)
    one, same = ballot(tmp_path / "1.json", key, "AB", "ffff"), ballot(tmp_path / "2.csv", key, " ab ", "oooo")
    assert "are both from reader" in rayscribe(*score, one, same, code=1)
    assert "contains no vote" in rayscribe(*score, ballot(tmp_path / "3.json", key, "C", ""), code=1)
    for name in (" ", "\u200c", "\x07"):
        unseen = ballot(tmp_path / "4.json", key, name, "ffff")
        assert "4.json: the reader's name is empty or invisible; write one" in rayscribe(*score, unseen, code=1)
    mixed = ballot(tmp_path / "4.csv", key, "C", "ffff")
    mixed.write_text(mixed.read_text(encoding="utf-8-sig").replace(",C,", ",D,", 1))
    assert "4.csv: contains votes of 2 readers, 'C' and 'D'; give one file" in rayscribe(*score, mixed, code=1)
    twice = json.loads(one.read_text())
    twice["votes"].append(twice["votes"][0])
    (tmp_path / "5.json").write_text(json.dumps(twice))
    assert "duplicate item" in rayscribe(*score, tmp_path / "5.json", code=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON (maximum recursion depth"),
        ("[]", "not the votes of a reader study"),
        ('{"format": "rayscribe-votes-1", "votes": 3}', "contains no list of votes"),
        ('{"format": "rayscribe-votes-1", "votes": [3]}', "vote 1: not"),
        ("a,b\n1,2\n", "column study is missing"),
        ("study,reader,item,vote\na,b\n", "line 2: the number of fields differs"),
        ("", "column study is missing"),
    ],
)
def test_a_file_that_is_no_votes_is_refused(
    make: Run, rayscribe: Run, tmp_path: Path, content: str, message: str
) -> None:
    make("--studies", 4)
    (tmp_path / "votes").write_text(content)
    assert message in rayscribe("reader-study", "score", tmp_path / "study.json", tmp_path / "votes", code=1)


def test_votes_in_another_encoding_are_refused_with_the_way_out(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    (tmp_path / "votes.csv").write_bytes("study,reader,item,vote\ns,Zoë,i,A\n".encode("latin-1"))
    message = rayscribe("reader-study", "score", tmp_path / "study.json", tmp_path / "votes.csv", code=1)
    assert "votes.csv: not UTF-8" in message
    assert "save it as CSV UTF-8, or send the file as it was downloaded" in message


def test_a_key_that_was_changed_or_is_none_is_refused(make: Run, rayscribe: Run, tmp_path: Path) -> None:
    make("--studies", 4)
    key = key_of(tmp_path)
    votes = ballot(tmp_path / "votes.json", key, "AB", "ffff")
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(key | {"names": key["names"][::-1]}))
    assert "was modified after it was written" in rayscribe("reader-study", "score", changed, votes, code=1)
    assert "not the key of a reader study" in rayscribe("reader-study", "score", votes, votes, code=1)
    assert "no such key" in rayscribe("reader-study", "score", tmp_path / "none.json", votes, code=1)
    assert "no such votes file" in rayscribe("reader-study", "score", tmp_path / "study.json", "none.csv", code=1)
    changed.write_text(json.dumps(key | {"items": key["items"][::-1]}))
    assert "was modified after it was written" in rayscribe("reader-study", "score", changed, votes, code=1)
    changed.write_text('{"format":' * 200_000)
    assert "changed.json: not JSON" in rayscribe("reader-study", "score", changed, votes, code=1)
    changed.write_bytes(b"\xff\xfe{")
    assert "not JSON" in rayscribe("reader-study", "score", changed, votes, code=1)
