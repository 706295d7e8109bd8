"""A model's words as a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import small_config
from rayscribe.data.manifest import read_manifest
from rayscribe.drafts import Draft
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.reports.document import Author, document_json, read_document
from rayscribe.reports.drafting import author_of, document_of, readable_report, sentences_of, without_names
from rayscribe.training.run import train_method

AUTHOR = Author(name="m", system="r2gen", weights_sha256="0" * 64, rayscribe="0", section="findings")
WORDS = st.sampled_from(
    "heart normal . ! ? .The vs. Dr. 1) 2) \n - FINDINGS: No effusion, \t \u2003 é ... e.g. pneumothorax".split(" ")
)


@given(st.one_of(st.lists(WORDS).map(" ".join), st.lists(WORDS).map("".join), st.text()))
@example("the heart is normal . no <unk> effusion .")
@example("1) Normal heart 2) No effusion? Yes.")
@example(". . .")
def test_the_sentences_joined_are_the_report(report: str) -> None:
    found = sentences_of(report)
    assert " ".join(sentence.text for sentence in found) == " ".join(report.split())
    assert all(0 <= one.start < one.end <= len(sentence.text) for sentence in found for one in sentence.mentions)


def test_a_sentence_keeps_its_end_mark_and_names_what_it_speaks_of() -> None:
    found = sentences_of("The heart is enlarged.  No pleural effusion! Is there a pneumothorax? 1) Normal 2) Clear")
    assert [sentence.text for sentence in found] == [
        "The heart is enlarged.",
        "No pleural effusion!",
        "Is there a pneumothorax?",
        "1) Normal",
        "2) Clear",
    ]
    (named,) = found[1].mentions
    assert (named.observation, named.state) == ("Pleural Effusion", "negative")
    assert found[1].text[named.start : named.end] == "pleural effusion"


def test_cleaned_words_are_sentences_too() -> None:
    found = sentences_of("the heart is normal . no effusion .")
    assert [sentence.text for sentence in found] == ["the heart is normal .", "no effusion ."]


def test_a_document_holds_the_alternatives_and_the_states_in_front() -> None:
    draft = Draft(reports=["a .", "b ."], warnings=["w"], diagnosis={"Edema": "positive", "Fracture": "not mentioned"})
    document = document_of(draft, AUTHOR, images=2, created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert [report.text for report in document.reports] == ["A.", "B."]
    assert [(one.name, one.state, one.source) for one in document.findings] == [("Edema", "positive", "disease head")]
    assert document.created == "2026-01-02T03:04:05+00:00"
    assert read_document(document_json(document), "x") == document


def test_a_document_names_no_file() -> None:
    draft = Draft(reports=["a ."], warnings=["DOE^JANE.dcm: looks inverted", "of the model"], diagnosis={})
    cleaned = without_names(draft, [Path("x/other.png"), Path("x/DOE^JANE.dcm")])
    assert cleaned.warnings == ["image 2: looks inverted", "of the model"]


def test_an_empty_report_is_no_draft() -> None:
    with pytest.raises(InputError, match="empty report"):
        document_of(Draft(reports=[" "], warnings=[], diagnosis={}), AUTHOR, images=1, created=datetime.now(UTC))


def test_predict_writes_the_draft_of_a_folder_model(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "draft.json"
    train_method(small_config("r2gen", epochs=1), world, run)
    image = read_manifest(world).split("test")[0].images[0]
    printed = rayscribe("predict", image, "--model", run, "--out", out)
    assert str(out) in printed and "Not a medical device" in printed
    document = read_document(out.read_text(), "draft")
    assert document.model == author_of(run)
    assert document.model.weights_sha256 == sha256_of(run / "model.safetensors")
    assert (document.model.section, document.model.system, document.images) == ("findings", "r2gen", 1)
    assert json.loads(out.read_text())["status"] == "preliminary"
    assert printed.startswith(document.text + "\n")
    assert bare(document.text) == bare(rayscribe("predict", image, "--model", run, "--raw").split("\n\n")[0])
    answer = json.loads(rayscribe("predict", image, "--model", run, "--out", out, "--json", "--best", 2))
    assert answer["report"] == document.text and bare(answer["raw"]) == bare(document.text)
    numbered = rayscribe("predict", image, "--model", run, "--best", 2).splitlines()[:2]
    assert numbered == [f"1. {answer['report']}", f"2. {answer['alternatives'][0]}"]
    assert [report.text for report in read_document(out.read_text(), "draft").reports] == [
        line[3:] for line in numbered
    ]
    raw = json.loads(rayscribe("predict", image, "--model", run, "--json", "--raw"))
    assert raw["report"] == raw["raw"] == answer["raw"]


def test_a_report_reads_as_sentences_unless_its_model_writes_them_itself() -> None:
    assert readable_report("the heart is normal . no effusion .") == "The heart is normal. No effusion."
    assert readable_report("no effusion , edema ( mild )") == "No effusion, edema (mild)"
    as_written = "Heart size is normal .\nNo effusion."
    assert readable_report(as_written) == as_written


def bare(text: str) -> str:
    """Without what a draft changes of a model's words: capitals and blanks."""
    return "".join(text.lower().split())
