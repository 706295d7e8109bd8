"""The whole evaluation on the drawn world: what a score file holds, and that it says when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayscribe.data.label_tables import LabelTables, read_labels, write_labels
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.compare import compare, read_entry
from rayscribe.evaluation.evaluate import evaluate_predictions
from rayscribe.evaluation.protocol import Protocol, reference_reports, written_reports
from rayscribe.evaluation.scorers import Scorers
from rayscribe.files import write_text
from rayscribe.labels import OBSERVATIONS
from rayscribe.metrics.families import restored, stored, together
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.meteor import find_resources
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.pages.compare import compare_latex, compare_page, compare_text
from rayscribe.pages.evaluation import evaluation_page
from rayscribe.pages.summary import summary

FEW = 300  # resamples; the tests are about what is there, not about its last digit
PLAIN = Protocol()


@pytest.fixture(scope="module")
def scorers() -> Scorers:
    # Without the large paraphrase table, which takes seconds to read.
    return Scorers(resamples=FEW, meteor=replace(find_resources(), paraphrases=None))


def imperfect(references: dict[str, str], seed: int) -> dict[str, str]:
    """Half of the studies get their own reference, the others any."""
    random, texts = np.random.default_rng(seed), list(references.values())
    return {
        name: text if random.random() < 0.5 else texts[random.integers(len(texts))] for name, text in references.items()
    }


@pytest.fixture(scope="module")
def scored(world: Path, scorers: Scorers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Score files of three systems on the training split, which is the largest."""
    manifest, folder = read_manifest(world), tmp_path_factory.mktemp("scores")
    references = reference_reports(manifest, "train", Protocol())
    found = {}
    for name, reports in {
        "good": references,
        "half": imperfect(references, 1),
        "other": imperfect(references, 2),
    }.items():
        result = evaluate_predictions(reports, manifest, split="train", protocol=Protocol(), scorers=scorers)
        found[name] = folder / name / "scores.json"
        write_text(found[name], json.dumps(result))
    return found


def test_a_score_file_has_the_promised_keys(scored: dict[str, Path]) -> None:
    result = json.loads(scored["half"].read_text())
    names = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "cider_d", "normal_f1", "abnormal_f1"} | {
        f"ce_f1_{average}_{size}_uncertain_{policy}"
        for average in ("micro", "macro", "example")
        for size in (14, 5)
        for policy in ("negative", "positive")
    }
    assert names <= result["scores"].keys()
    assert all(one["low"] <= one["value"] <= one["high"] or name != "rouge_l" for name, one in result["scores"].items())
    assert result["floors"].keys() == {
        "constant",
        "most_frequent",
        "always_normal",
        "random_training",
        "shuffled",
        "nearest_image",
        "template",
        "best_constant",
        "every_finding",
        "thumbnails",
        "corners",
        "scanner",
    }
    shown = ("bleu4", "rouge_l", "cider", "ce_f1_macro_14_uncertain_negative")
    assert all(name in floor["scores"] for floor in result["floors"].values() for name in shown)
    assert result["subsets"].keys() == {"normal", "abnormal", "seen", "novel"}
    assert result["subsets"]["seen"]["studies"] == result["studies"]  # it was scored on train
    assert result["observations"]["uncertain_negative"].keys() == set(OBSERVATIONS)
    assert isinstance(result["alarms"], list)
    assert result["disclaimer"]


def test_copying_the_references_raises_no_alarm_and_beats_every_floor(scored: dict[str, Path]) -> None:
    result = json.loads(scored["good"].read_text())
    assert result["alarms"] == []
    assert result["scores"]["bleu4"]["value"] == pytest.approx(1)
    for name, floor in result["floors"].items():
        if name not in (
            "nearest_image",
            "thumbnails",
            "corners",
        ):  # on train it finds the study itself
            assert floor["scores"]["bleu4"]["value"] < 1
    assert result["against_constant"]["bleu4"]["p_holm"] < 0.05


def test_scores_are_those_of_the_plain_functions(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    reports = imperfect(references, 3)
    result = evaluate_predictions(reports, manifest, split="val", protocol=Protocol(), scorers=scorers)
    expected = overlap_scores(list(reports.values()), list(references.values()))
    assert {name: result["scores"][name]["value"] for name in expected} == pytest.approx(expected)


def test_one_report_for_everybody_is_said_so_at_the_top(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "train", Protocol())
    same = dict.fromkeys(references, "the heart is normal in size .")
    result = evaluate_predictions(same, manifest, split="train", protocol=Protocol(), scorers=scorers)
    lines = summary(result).splitlines()
    assert lines[0].startswith("ALARM  COLLAPSED: 1 distinct reports")
    assert any(line.startswith("ALARM  NOT GROUNDED") for line in lines)
    assert any(line.startswith("ALARM  BELOW THE FLOOR") for line in lines)


def test_markers_and_headings_change_no_score_and_are_named(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    plain = imperfect(references, 3)
    marked = {
        study: f"**FINDINGS:**\n- {text.replace(' . ', ' .' + chr(10) + '- ')}</s>" for study, text in plain.items()
    }
    clear, listed = (
        evaluate_predictions(reports, manifest, split="val", protocol=Protocol(), scorers=scorers)
        for reports in (plain, marked)
    )
    assert listed["scores"] == clear["scores"]
    assert f"note: {len(references)} of {len(references)} predictions have bullets" in summary(listed)
    assert "bullets" not in summary(clear)


def test_stored_statistics_give_back_the_scores(scored: dict[str, Path]) -> None:
    result = json.loads(scored["half"].read_text())
    families = restored("file", result["statistics"], result["signature"]["meteor"])
    again = together(families).scores()
    assert again == pytest.approx({name: one["value"] for name, one in result["scores"].items()}, abs=1e-6)
    assert stored(result["statistics"]["ids"], None, families) == result["statistics"]


def test_a_comparison_shows_intervals_tests_and_the_floor(scored: dict[str, Path]) -> None:
    entries = [read_entry(f"half={scored['half']}"), read_entry(f"good={scored['good']}")]
    result = compare(entries, resamples=FEW)
    test = result["differences"]["good"]["bleu4"]
    assert test["difference"] > 0
    assert test["p_holm"] >= test["p"] == pytest.approx(1 / (FEW + 1))
    for made in (compare_text(result), compare_latex(result), compare_page(result)):
        assert "half" in made
        assert "constant report" in made
        assert "not a medical device" in made.lower()
    assert compare_latex(result).count("\\\\") == 4
    assert "fewer than 3 seeds" in compare_text(result)


def test_seeds_of_one_system_are_averaged_and_listed(scored: dict[str, Path]) -> None:
    entries = [read_entry(f"mixed={scored['half']},{scored['other']}"), read_entry(f"good={scored['good']}")]
    result = compare(entries, resamples=FEW)
    mixed, single = result["systems"]["mixed"]["scores"]["bleu4"], result["systems"]["good"]["scores"]["bleu4"]
    values = [json.loads(scored[name].read_text())["scores"]["bleu4"]["value"] for name in ("half", "other")]
    assert mixed["seeds"] == pytest.approx(values)
    assert mixed["value"] == pytest.approx(np.mean(values))
    assert mixed["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert single["deviation"] is None


def test_seeds_stand_against_as_many_seeds_or_one(scored: dict[str, Path], tmp_path: Path) -> None:
    seeds = [tmp_path / f"{number}.json" for number in range(5)]
    for path in seeds:
        path.write_text(scored["half"].read_text())
    two, three = f"{seeds[0]},{seeds[1]}", f"{seeds[2]},{seeds[3]},{seeds[4]}"
    for first, second, message in ((two, three, "3 seeds against 2"), (three, two, "2 seeds against 3")):
        with pytest.raises(InputError, match=f"{message}; give both systems the same number"):
            compare([read_entry(f"a={first}"), read_entry(f"b={second}")], resamples=FEW)


def test_a_study_without_the_section_has_no_reference(world: Path) -> None:
    manifest = read_manifest(world)
    bare, *others = manifest.split("test")
    studies = tuple(
        replace(study, findings="" if study.id == bare.id else study.findings) for study in manifest.studies
    )
    assert set(reference_reports(replace(manifest, studies=studies), "test", Protocol())) == {one.id for one in others}


def test_floors_of_training_reports_need_train_and_val(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    kept = replace(manifest, studies=tuple(study for study in manifest.studies if study.split != "val"))
    references = reference_reports(kept, "test", Protocol())
    result = evaluate_predictions(references, kept, split="test", protocol=Protocol(), scorers=scorers)
    assert result["floors"].keys() == {"shuffled"}
    assert "no floor from training reports: the manifest lacks train or val" in result["notes"]


def test_two_protocols_are_never_compared(
    scored: dict[str, Path], world: Path, scorers: Scorers, tmp_path: Path
) -> None:
    manifest = read_manifest(world)
    protocol = Protocol(references="r2gen_compat", threshold=1, max_length=12)
    references = reference_reports(manifest, "train", protocol)
    result = evaluate_predictions(references, manifest, split="train", protocol=protocol, scorers=scorers)
    write_text(tmp_path / "cut.json", json.dumps(result))
    with pytest.raises(InputError, match="references: full against r2gen_compat"):
        compare([read_entry(str(scored["half"])), read_entry(str(tmp_path / "cut.json"))], resamples=FEW)
    older = json.loads(scored["half"].read_text())
    older["signature"]["rayscribe"] = "0.0.1"
    write_text(tmp_path / "older.json", json.dumps(older))
    compare([read_entry(str(scored["half"])), read_entry(str(tmp_path / "older.json"))], resamples=FEW)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a score file"),
        ('{"signature": {}, "scores": {}}', "has no statistics by study"),
    ],
)
def test_what_is_no_score_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_entry(str(tmp_path / "a.json"))


def test_a_comparison_needs_two_differently_named_systems(scored: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="at least two"):
        compare([read_entry(str(scored["half"]))])
    with pytest.raises(InputError, match="same name"):
        compare([read_entry(str(scored["half"]))] * 2)


def test_patients_are_resampled_whole_where_every_study_names_one(
    world: Path, scorers: Scorers, tmp_path: Path
) -> None:
    manifest = read_manifest(world)
    named = tuple(replace(study, subject=f"p{number // 4}") for number, study in enumerate(manifest.studies))
    manifest = replace(manifest, studies=named)
    write_manifest(tmp_path / "patients.parquet", manifest)
    reports = imperfect(reference_reports(manifest, "train", Protocol()), 4)
    result = evaluate_predictions(reports, manifest, split="train", protocol=Protocol(), scorers=scorers)
    assert "over patients" in result["interval"]
    assert "p1" not in json.dumps(result["statistics"]["patients"])
    assert len(set(result["statistics"]["patients"])) < result["studies"]


def test_label_tables_take_the_labelers_place(world: Path, scorers: Scorers, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    reports = imperfect(references, 5)
    labeler = RuleLabeler()
    for name, texts in (("reports", reports), ("references", references)):
        rows = [{"study_id": one} for one in texts]
        write_labels(tmp_path / f"{name}.csv", rows, labeler.label(list(texts.values())))
    tables = LabelTables.read(tmp_path / "reports.csv", tmp_path / "references.csv")
    by_rules = evaluate_predictions(reports, manifest, split="val", protocol=Protocol(), scorers=scorers)
    by_table = evaluate_predictions(
        reports, manifest, split="val", protocol=Protocol(), scorers=replace(scorers, tables=tables)
    )
    assert by_table["scores"] == by_rules["scores"]
    assert by_table["signature"]["labeler"] != by_rules["signature"]["labeler"]
    assert "ce_f1_micro_14_uncertain_negative" not in by_table["floors"]["constant"]["scores"]


def test_label_tables_are_read_by_name_and_their_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    backwards = list(OBSERVATIONS)[::-1]
    path.write_text(",".join(["study_id", *backwards]) + "\na," + ",".join(["1.0", "-1", "0", *[""] * 11]) + "\n")
    states = read_labels(path)["a"]
    assert [states[OBSERVATIONS.index(name)] for name in backwards[:4]] == [1, 3, 2, 0]
    path.write_text(path.read_text().replace("1.0", "2"))
    with pytest.raises(InputError, match="line 2, Support Devices: '2' is none of"):
        read_labels(path)
    path.write_text("study_id,Edema\na,1\n")
    with pytest.raises(InputError, match="missing: No Finding"):
        read_labels(path)
    with pytest.raises(InputError, match=r"lack 1 of 2 studies, e\.g\. b"):
        LabelTables(predicted={"a": (0,) * 14}, reference={}, name="x").pair(["a", "b"])


@pytest.mark.slow
def test_the_page_shows_images_only_where_the_terms_allow_it(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    reports = imperfect(references, 6)
    result = evaluate_predictions(reports, manifest, split="val", protocol=Protocol(), scorers=scorers)
    written = written_reports(reports, references, "val", Protocol())
    closed = evaluation_page(result, manifest, written, references)
    assert "data:image/png" not in closed
    assert closed.count("<article>") == 9
    free = replace(manifest, provenance=manifest.provenance | {"images_may_be_shown": True})
    assert "data:image/png" in evaluation_page(result, free, written, references)
    assert "http://" not in closed.replace("http://www.w3.org", "")
    assert "https://" not in closed


def test_evaluation_imports_no_torch() -> None:
    code = (
        "import sys, rayscribe.cli.main, rayscribe.evaluation.evaluate, rayscribe.evaluation.compare, "
        "rayscribe.pages.evaluation, "
        "rayscribe.data.audit, rayscribe.cli.evaluate; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


def test_graphs_made_elsewhere_add_their_score(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    graph = {"entities": {"1": {"tokens": "effusion", "label": "OBS-DP", "relations": []}}}
    empty: dict[str, dict[str, str]] = {"entities": {}}
    half = {name: graph if number % 2 else empty for number, name in enumerate(references)}
    whole = dict.fromkeys(references, graph)
    result = evaluate_predictions(
        references, manifest, split="val", protocol=Protocol(), scorers=replace(scorers, graphs=(half, whole))
    )
    share = (len(references) // 2) / len(references)
    assert result["scores"]["radgraph_simple"]["value"] == pytest.approx(share)
    families = restored("file", result["statistics"], result["signature"]["meteor"])
    assert together(families).scores()["radgraph_complete"] == pytest.approx(share)
    with pytest.raises(InputError, match="graphs of the predictions lack"):
        evaluate_predictions(
            references, manifest, split="val", protocol=Protocol(), scorers=replace(scorers, graphs=({}, whole))
        )


def test_score_files_without_labelled_floors_are_compared(world: Path, scorers: Scorers, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    labels = dict.fromkeys(references, (1, *((0,) * 13)))
    tables = LabelTables(predicted=labels, reference=labels, name="x")
    for name, reports in (("a", references), ("b", imperfect(references, 8))):
        result = evaluate_predictions(
            reports, manifest, split="val", protocol=Protocol(), scorers=replace(scorers, tables=tables)
        )
        write_text(tmp_path / f"{name}.json", json.dumps(result))
    result = compare([read_entry(str(tmp_path / f"{name}.json")) for name in "ab"], resamples=FEW)
    assert "bleu4" in result["floor"]
    assert "ce_f1_micro_14_uncertain_negative" not in result["floor"]
    assert compare_text(result)
    assert compare_latex(result)
    assert compare_page(result)


def test_seen_studies_are_those_of_the_full_references_under_every_mode(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    sizes = []
    for protocol in (Protocol(), Protocol(references="r2gen_compat", threshold=3, max_length=12)):
        references = reference_reports(manifest, "train", protocol)
        result = evaluate_predictions(references, manifest, split="train", protocol=protocol, scorers=scorers)
        sizes.append(result["subsets"]["seen"]["studies"])
    assert sizes == [result["studies"]] * 2


def test_graphs_of_two_models_have_two_signatures(world: Path, scorers: Scorers) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "val", Protocol())
    names = set()
    for label in ("ANAT-DP", "Anatomy::definitely present"):
        graph = {"entities": {"1": {"tokens": "lung", "label": label, "relations": []}}}
        graphs = dict.fromkeys(references, graph)
        chosen = replace(scorers, graphs=(graphs, graphs))
        result = evaluate_predictions(references, manifest, split="val", protocol=Protocol(), scorers=chosen)
        names.add(result["signature"]["radgraph"])
    assert len(names) == 2


def test_a_cut_label_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(",".join(["study_id", *OBSERVATIONS]) + "\na,1,1\n")
    with pytest.raises(InputError, match="line 2: the number of fields differs"):
        read_labels(path)
