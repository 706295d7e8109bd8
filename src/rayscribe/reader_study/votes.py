"""The votes of a blind reader study: read as the page exports them, unblinded with the key, counted and tested.

Shapes: I items, C choices (first system, same, second system).
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.metrics.agreement import cohen_kappa, fleiss_kappa, pair_agreement, preference
from rayscribe.metrics.statistics import holm

VOTES_FORMAT = "rayscribe-votes-1"
CHOICES = ("first", "same", "second")
"Meaning of an unblinded vote, in this order on a scale."

_VOTES = {"a": "A", "same": "same", "b": "B"}
_COLUMNS = ("study", "reader", "item", "vote", "comment")
_UNSEEN = ("Cf", "Zs")  # joiners and spaces may occur in a name, but do not make one
_GUARD = re.compile(r"^'(?=[ \t\r\n]*['=+\-@＝＋－＠]|[\t\r\n])")
"The page (`guarded`, with the same characters) prefixes an apostrophe to cells that a spreadsheet would read as a formula."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One reader's votes, still blinded: A, same or B by item."""

    path: Path
    reader: str
    votes: dict[str, str]
    comments: dict[str, str]


def read_ballot(path: Path, key: Mapping[str, Any]) -> Ballot:
    """Reads a file that the page exported (.json or .csv). Raises InputError that names the vote."""
    if not path.is_file():
        raise InputError(f"{path}: no such votes file; readers export it from the page")
    votes: dict[str, str] = {}
    comments: dict[str, str] = {}
    readers: set[str] = set()
    for place, row in _rows(path):
        reader, item, vote, comment = _checked(f"{path}, {place}", row, key)
        if item in votes:
            raise InputError(f"{path}, {place}: duplicate item {item}; export the votes again")
        votes[item] = vote
        comments |= {item: comment} if comment.strip() else {}
        readers.add(reader)
    if not votes:
        raise InputError(f"{path}: contains no vote; the reader must vote before exporting")
    if len(readers) > 1:
        some = " and ".join(_quoted(name) for name in sorted(readers)[:2])
        raise InputError(f"{path}: contains votes of {len(readers)} readers, {some}; give one file per reader")
    reader = readers.pop()
    if all(unicodedata.category(letter) in _UNSEEN for letter in reader):
        raise InputError(f"{path}: the reader's name is empty or invisible; write one in `reader` of the file")
    return Ballot(path=path, reader=reader, votes=votes, comments=comments)


def score_votes(key: Mapping[str, Any], ballots: Sequence[Ballot]) -> dict[str, Any]:
    """Counts, shares, tests and agreement; for all items, and for normal and abnormal ones if they are coded.

    Raises InputError for no ballots, or two ballots of one reader.
    """
    if not ballots:
        raise InputError("give the readers' votes: rayscribe reader-study score key.json votes.json votes.csv ...")
    ordered = sorted(ballots, key=lambda ballot: ballot.reader.casefold())
    for one, two in pairwise(ordered):
        if one.reader.casefold() == two.reader.casefold():
            raise InputError(
                f"{one.path} and {two.path} are both from reader {_quoted(one.reader)}; give one file per reader. If they are "
                "two people, change `reader` in one of the files"
            )
    items = key["items"]
    choices = {ballot.reader: _unblinded(ballot, key) for ballot in ballots}
    parts = {"all": items}
    if all(item["normal"] is not None for item in items):
        parts["normal"] = [item for item in items if item["normal"]]
        parts["abnormal"] = [item for item in items if not item["normal"]]
    found = {name: _part(choices, [item["item"] for item in some]) for name, some in parts.items() if some}
    # Every reader answers one question about all pairs. Subsets are described, not tested.
    tested = [reader for reader in found["all"]["readers"].values() if reader["p"] is not None]
    for reader, corrected in zip(tested, holm([reader["p"] for reader in tested])):
        reader["p_holm"] = corrected
    return {
        "study": key["study"],
        "names": key["names"],
        "items": len(items),
        "drawn_from": key["drawn_from"],
        "settings": key["settings"],
        "readers": {ballot.reader: _habits(ballot) for ballot in ballots},
        "parts": found,
        "agreement": _agreement(choices, [item["item"] for item in items]),
        "votes": [_vote(item, ballots, choices) for item in items],
        "disclaimer": DISCLAIMER,
    }


def _checked(place: str, row: Mapping[str, Any], key: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Reader, item, vote and comment of one row."""
    fields = [row.get(name, "") for name in _COLUMNS]
    if not all(isinstance(value, str) for value in fields):
        raise InputError(f"{place}: {', '.join(_COLUMNS)} must be texts; export the votes again")
    study, item, vote = (" ".join(fields[place].split()) for place in (0, 2, 3))
    if study != key["study"]:
        raise InputError(
            f"{place}: from study {_quoted(study)}, but the key is for {key['study']}; give the key of that page"
        )
    if all(item != known["item"] for known in key["items"]):
        raise InputError(f"{place}: the study has no item {_quoted(item)}; export the votes again")
    if vote.lower() not in _VOTES:
        raise InputError(f"{place}: the vote {_quoted(vote)} is not one of {', '.join(_VOTES.values())}")
    # Half a surrogate pair, which JSON allows and files do not, becomes a question mark.
    return _name(fields[1]), item, _VOTES[vote.lower()], fields[4].encode(errors="replace").decode()


def _name(text: str) -> str:
    """A reader's name, normalised as on the page: one form of every letter, single spaces, no control characters."""
    kept = ("".join(one for one in word if unicodedata.category(one) not in ("Cc", "Cs")) for word in text.split())
    return unicodedata.normalize("NFC", " ".join(filter(None, kept)))


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= 20 else f"{text[:20]!r}..."


def _part(choices: Mapping[str, Mapping[str, int]], items: Sequence[str]) -> dict[str, Any]:
    """Results for some items: every reader, all votes together, and the majority on each item that all readers answered.

    Votes of several readers on one item are not independent, so all votes together have no interval and no test.
    """
    readers = {}
    for reader, votes in choices.items():
        counts = [sum(votes.get(item) == choice for item in items) for choice in range(3)]
        readers[reader] = asdict(preference(*counts)) | {"answered": sum(counts)}
    first, same, second = (sum(one[name] for one in readers.values()) for name in CHOICES)
    found: dict[str, Any] = {"items": len(items), "readers": readers}
    if len(choices) > 1:
        share = first / (first + second) if first + second else None
        found["pooled"] = {"first": first, "same": same, "second": second, "share": share}
        shared = _answered_by_all(choices, items)
        winners = [_majority([votes[item] for votes in choices.values()]) for item in shared]
        counts = [winners.count(choice) for choice in range(3)]
        found["majority"] = asdict(preference(*counts)) | {"none": winners.count(None), "items": len(shared)}
    return found


def _answered_by_all(choices: Mapping[str, Mapping[str, int]], items: Sequence[str]) -> list[str]:
    return [item for item in items if all(item in votes for votes in choices.values())]


def _majority(votes: Sequence[int]) -> int | None:
    """The choice of more than half of an item's votes; None if there is none."""
    return next((choice for choice in range(3) if 2 * votes.count(choice) > len(votes)), None)


def _agreement(choices: Mapping[str, Mapping[str, int]], items: Sequence[str]) -> dict[str, Any]:
    """Agreement on the items that all readers answered; a kappa is None where it is undefined."""
    shared = _answered_by_all(choices, items)
    found: dict[str, Any] = {"readers": len(choices), "items": len(shared)}
    if len(choices) < 2 or not shared:
        return found
    table_RI = np.array([[votes[item] for item in shared] for votes in choices.values()])
    counts_IC = np.stack([(table_RI == choice).sum(0) for choice in range(3)], axis=1)
    found["agreement"] = pair_agreement(counts_IC)
    if len(choices) == 2:
        found["cohen_kappa"] = cohen_kappa(table_RI[0], table_RI[1], categories=3)
        found["cohen_kappa_linear"] = cohen_kappa(table_RI[0], table_RI[1], categories=3, linear=True)
    else:
        found["fleiss_kappa"] = fleiss_kappa(counts_IC)
    return found


def _unblinded(ballot: Ballot, key: Mapping[str, Any]) -> dict[str, int]:
    """Index in `CHOICES` by item."""
    sides = {item["item"]: item for item in key["items"]}
    return {
        item: 1 if vote == "same" else 2 * (sides[item][vote] != key["names"][0]) for item, vote in ballot.votes.items()
    }


def _habits(ballot: Ballot) -> dict[str, Any]:
    sides = list(ballot.votes.values())
    return {
        "file": ballot.path.name,
        "answered": len(sides),
        "chose_a": sides.count("A"),
        "chose_b": sides.count("B"),
        "comments": len(ballot.comments),
    }


def _vote(
    item: Mapping[str, Any], ballots: Sequence[Ballot], choices: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    name = item["item"]
    votes = {reader: CHOICES[found[name]] for reader, found in choices.items() if name in found}
    comments = {ballot.reader: ballot.comments[name] for ballot in ballots if name in ballot.comments}
    return {**item, "votes": votes, "comments": comments}


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Votes with study and reader, and their place in the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        yield from _json(path, text) if text.lstrip().startswith(("{", "[")) else _csv(path, text)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 ({error}); save it as CSV UTF-8, or send the file as it was downloaded"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a readable table ({error}); export the votes again") from error


def _json(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); export the votes again") from error
    if not isinstance(content, dict) or content.get("format") != VOTES_FORMAT:
        raise InputError(f"{path}: not the votes of a reader study; readers export them from the page")
    votes = content.get("votes")
    if not isinstance(votes, list):
        raise InputError(f"{path}: contains no list of votes; export the votes again")
    for number, vote in enumerate(votes, start=1):
        if not isinstance(vote, dict):
            raise InputError(f'{path}, vote {number}: not {{"item": ..., "vote": ...}}; export the votes again')
        yield f"vote {number}", {**vote, "study": content.get("study"), "reader": content.get("reader")}


def _csv(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Also reads files with semicolons, which spreadsheets write in some locales."""
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    if lacking := [name for name in _COLUMNS[:4] if name not in (reader.fieldnames or [])]:
        raise InputError(
            f"{path}: not the votes of a reader study, as column {lacking[0]} is missing; export the votes again"
        )
    for row in reader:
        if not any("".join(cells or "").strip() for cells in row.values()):
            continue  # spreadsheets keep emptied rows
        if None in row or None in row.values():
            raise InputError(f"{path}, line {reader.line_num}: the number of fields differs from the header's")
        yield f"line {reader.line_num}", {name: _GUARD.sub("", value) for name, value in row.items()}
