"""RadGraph F1: from annotations, and through the package with a small model built from a config."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from rayscribe.errors import InputError
from rayscribe.metrics.radgraph import RadGraph, radgraph_rows, read_annotations, rewards


def graph(*entities: tuple[str, str, list[list[str]]]) -> dict[str, object]:
    return {
        "entities": {
            str(number): {"tokens": tokens, "label": label, "relations": relations}
            for number, (tokens, label, relations) in enumerate(entities, start=1)
        }
    }


REFERENCE = graph(("small", "OBS-DP", [["modify", "2"]]), ("effusion", "OBS-DP", []), ("pneumothorax", "OBS-DA", []))
WITHOUT_RELATION = graph(("small", "OBS-DP", []), ("effusion", "OBS-DP", []))
OTHER_LABEL = graph(("effusion", "OBS-DA", []))


def test_the_levels_ask_for_entities_then_for_having_a_relation_then_for_the_relation() -> None:
    assert rewards(REFERENCE, REFERENCE) == (1, 1, 1)
    # 2 of 2 written and 2 of 3 wanted entities; without its relation "small" counts at the first level only.
    assert rewards(WITHOUT_RELATION, REFERENCE) == pytest.approx((0.8, 0.4, 0.4))
    assert rewards(OTHER_LABEL, REFERENCE) == (0, 0, 0)
    assert rewards(graph(), graph()) == (0, 0, 0)


def test_a_report_without_annotation_scores_nothing() -> None:
    rows = radgraph_rows([REFERENCE, None, WITHOUT_RELATION], [REFERENCE, REFERENCE, REFERENCE])
    assert rows.scores() == pytest.approx(
        {"radgraph_simple": 1.8 / 3, "radgraph_partial": 1.4 / 3, "radgraph_complete": 1.4 / 3}
    )


def test_annotations_made_elsewhere_are_read_and_their_faults_named(tmp_path: Path) -> None:
    path = tmp_path / "graphs.json"
    path.write_text(json.dumps({"a": REFERENCE}))
    assert read_annotations(path) == {"a": REFERENCE}
    broken = graph(("small", "OBS-DP", [["modify", "9"]]))
    for content, message in (
        ("[]", "holds a list"),
        ("{", "no JSON"),
        ('{"a": {}}', 'no object "entities"'),
        (json.dumps({"a": broken}), "relation to '9', which is no entity"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_annotations(path)
    with pytest.raises(InputError, match="not readable"):
        read_annotations(tmp_path / "none.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("radgraph", reason="needs the radgraph package")
    from radgraph_standin import write_standin

    folder = tmp_path_factory.mktemp("models") / "radgraph-xl"
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_standin(folder, monkeypatch)
    return folder


def test_a_model_on_disk_annotates_reports_and_its_rewards_are_the_packages(model: Path) -> None:
    from radgraph.rewards import compute_reward

    annotator = RadGraph.load(model)
    reports = ["small left effusion . no pneumothorax", "", "the heart is normal . small right effusion", "clear lungs"]
    graphs = annotator.annotate(reports)
    assert graphs[1] is None
    found = [one for one in graphs if one is not None]
    assert any(one["entities"] for one in found)
    assert RadGraph.load(model).annotate(reports) == graphs
    for one in found:
        for other in found:
            assert rewards(one, other) == pytest.approx(compute_reward(one, other, "all"))


def test_wrong_model_folders_are_refused_with_their_name(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the folder after its model"):
        RadGraph.load(tmp_path)
    (tmp_path / "radgraph").mkdir()
    with pytest.raises(InputError, match=r"config\.json: missing"):
        RadGraph.load(tmp_path / "radgraph")
    broken = tmp_path / "radgraph-xl"
    shutil.copytree(model, broken)
    torch.save({"other": torch.zeros(1)}, broken / "weights.th")
    with pytest.raises(InputError, match=r"weights\.th: not the weights"):
        RadGraph.load(broken)
    shutil.rmtree(broken / "bert")
    with pytest.raises(InputError, match="no local folder and not in the local cache"):
        RadGraph.load(broken)


@pytest.mark.skipif(importlib.util.find_spec("radgraph") is not None, reason="is about a missing package")
def test_without_the_package_the_message_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install"):
        RadGraph.load(tmp_path)
