"""RadGraph F1: from annotations, and through the package with a small model built from a config."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rayscribe.data.entities import read_entities
from rayscribe.data.manifest import read_manifest
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
        ("{", "not JSON"),
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
    with pytest.raises(InputError, match="neither a local folder nor in the local cache"):
        RadGraph.load(broken)


def test_entities_are_those_of_the_weights_themselves(model: Path) -> None:
    import transformers
    from radgraph_standin import WORDS

    weights = torch.load(model / "weights.th", weights_only=True)
    prefix = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
    bert = transformers.BertModel(transformers.BertConfig.from_json_file(str(model / "bert" / "config.json"))).eval()
    bert.load_state_dict({name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)})
    words = "no left effusion . the heart is normal".split()
    with torch.no_grad():
        states_TD = bert(torch.tensor([[2, *map(WORDS.index, words), 3]])).last_hidden_state[0, 1:-1]
    widths = weights["_endpoint_span_extractor._span_width_embedding.weight"]
    scorer = "_ner._ner_scorers.radgraph-xl__ner_labels."
    layer = scorer + "0._module._linear_layers.0."
    expected = []
    for start in range(len(words)):
        for end in range(start, min(start + 3, len(words))):
            span = torch.cat([states_TD[start], states_TD[end], widths[end - start]])
            inner = torch.relu(weights[layer + "weight"] @ span + weights[layer + "bias"])
            scores = weights[scorer + "1._module.weight"] @ inner + weights[scorer + "1._module.bias"]
            if scores.max() > 0:  # no entity scores 0
                label = ("Observation::definitely present", "Anatomy::definitely present")[int(scores.argmax())]
                expected.append((" ".join(words[start : end + 1]), label))
    (found,) = RadGraph.load(model).annotate(["no left effusion. the\n heart is normal"])
    assert found is not None and expected
    assert [(entity["tokens"], entity["label"]) for entity in found["entities"].values()] == expected


def test_scores_are_those_of_the_package_from_text_to_reward(model: Path, tmp_path: Path) -> None:
    from radgraph import F1RadGraph

    folder = tmp_path / "radgraph-xl"
    shutil.copytree(model, folder)
    config = (model / "config.json").read_text()  # the package wants an absolute path
    (folder / "config.json").write_text(config.replace('"model_name": "bert"', f'"model_name": "{model / "bert"}"'))
    annotator = RadGraph.load(folder)
    hypotheses = ["small left effusion .", "the heart is normal", "", "clear lungs", "effusion"]
    references = ["small right effusion .", "the heart is small", "clear lungs", "", "no effusion"]
    rows = radgraph_rows(annotator.annotate(hypotheses), annotator.annotate(references))
    theirs = F1RadGraph(reward_level="all", model_type="radgraph-xl", model_cache_dir=str(tmp_path), cuda=-1)
    means, levels, _, _ = theirs(hyps=hypotheses, refs=references)
    assert rows.table_RK[:, :3].T.tolist() == [list(level) for level in levels]
    assert list(rows.scores().values()) == pytest.approx(list(means))
    assert rows.scores()["radgraph_simple"] > 0


@pytest.mark.slow
def test_a_report_is_annotated_alike_alone_among_others_and_beyond_the_transformers_length(model: Path) -> None:
    annotator = RadGraph.load(model)
    long = " ".join(["no effusion left , the heart is small ."] * 20)  # 16 pieces fit at once
    reports = ["clear lungs", "effusion", long] * 25  # more than one chunk
    together = annotator.annotate(reports)
    assert together[:3] == [annotator.annotate([report])[0] for report in reports[:3]]
    assert together[3:] == together[:-3]
    assert together[2] is not None
    assert max(entity["end_ix"] for entity in together[2]["entities"].values()) > 150
    assert annotator.annotate([" \n"]) == [None] and annotator.annotate([]) == []


def test_no_network_is_used(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert RadGraph.load(model).annotate(["no effusion"])[0] is not None


def test_the_transformer_may_lie_in_the_local_cache_of_the_hub(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    folder = tmp_path / "radgraph-xl"
    shutil.copytree(model, folder)
    config = (model / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_name": "bert"', '"model_name": "someone/bert"'))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match="'someone/bert' is neither a local folder nor in the local cache"):
        RadGraph.load(folder)
    cached = tmp_path / "hub" / "models--someone--bert"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(model / "bert", cached / "snapshots" / ("0" * 40))
    assert RadGraph.load(folder).annotate(["no effusion"]) == RadGraph.load(model).annotate(["no effusion"])


def test_a_transformer_without_vocabulary_and_weights_that_are_code_are_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "radgraph-xl"
    shutil.copytree(model, folder)
    torch.save({"a": Path("code")}, folder / "weights.th")
    with pytest.raises(InputError, match=r"weights\.th: not the weights of this model: Weights only load failed"):
        RadGraph.load(folder)
    (folder / "bert" / "vocab.txt").unlink()
    with pytest.raises(InputError, match=r"with config\.json and vocab\.txt or tokenizer\.json; put these into"):
        RadGraph.load(folder)


@pytest.mark.skipif(importlib.util.find_spec("radgraph") is not None, reason="is about a missing package")
def test_without_the_package_the_message_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install"):
        RadGraph.load(tmp_path)


def test_jimas_entities_are_words_of_the_reports(
    world: Path, tmp_path: Path, model: Path, rayscribe: Callable[..., str]
) -> None:
    out = tmp_path / "entities.jsonl"
    assert "60 studies by radgraph" in rayscribe("build", "entities", world, "--out", out, "--radgraph", model)
    found, studies = read_entities(out, section="findings"), {study.id: study for study in read_manifest(world).studies}
    assert any(found.values())
    for id_, words in found.items():
        assert set("".join(words)) <= set(studies[id_].findings.lower())
