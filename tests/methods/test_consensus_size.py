"""Beyond its bounds consensus uses every study and says what it cannot do; below them it is the dense formula."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_consensus import features, fitted, macro_f1, reporter, small, texts

from rayscribe.checkpoint import load_fitted
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.labels import POSITIVE
from rayscribe.methods.consensus_references import References
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.metrics.expected_utility import FindingsTerm, Smoother, expected, joined_weights
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.ridge_sums import weighted_sums
from rayscribe.metrics.utility import ReportPairs, mixed
from rayscribe.training.forget import forget
from rayscribe.training.run import train_method

__all__ = ["fitted"]

BOUNDS = {"studies": 120, "references": 40, "most_candidates": 60}


@pytest.fixture(scope="module")
def bounded(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose training studies are more than every bound."""
    run, said = tmp_path_factory.mktemp("bounded") / "run", []
    config = small(fitted / "weights.safetensors", compose=False, **BOUNDS)
    train_method(config, fitted / "world.parquet", run, features=fitted / "features", notify=said.append)
    (run.parent / "said.txt").write_text("\n".join(said))
    return run


def array(run: Path, name: str) -> np.ndarray:
    return load_fitted(run).fitted.weights[name].numpy()


def test_below_the_bounds_drafts_are_those_of_the_dense_formula(fitted: Path) -> None:
    model = reporter(fitted)
    model = ConsensusReporter(run=small(fitted / "weights.safetensors", compose=False), fitted=model.fitted)
    reports = model.fitted.texts["reports"]
    candidates, pairs = list(dict.fromkeys(reports)), ReportPairs(list(dict.fromkeys(reports)), reports)
    utility_CJ = mixed({"bleu4": pairs.bleu4(), "cider": pairs.cider()}, {"bleu4": 1, "cider": 1})
    asked, found = features(fitted), []
    queries_VBK, has_view_BV = model._queries(asked)
    for view, _ in enumerate(queries_VBK):
        known_JK = array(fitted / "run", f"view{view}_studies").T
        rows = np.flatnonzero(np.abs(known_JK).any(1))
        smoother = Smoother.fit(known_JK[rows], rows, strength=model.fitted.texts["strength"])
        gram_KK = known_JK[rows].T.astype(np.float64) @ known_JK[rows]
        ridge = model.fitted.texts["strength"] * np.trace(gram_KK) / len(gram_KK) * np.eye(len(gram_KK))
        found.append(smoother.weights(queries_VBK[view] @ (gram_KK + ridge), len(reports)))
    weights_BJ = joined_weights(found, has_view_BV)
    assert model.weights(asked) == pytest.approx(weights_BJ, abs=1e-5)
    is_positive_JO, is_positive_CO = (RuleLabeler().label(one) == POSITIVE for one in (reports, candidates))
    term = FindingsTerm(
        thresholds_O=array(fitted / "run", "thresholds"),
        spread_O=array(fitted / "run", "spread"),
        gamma=model.fitted.texts["gamma"],
    )
    scores_BO = expected(weights_BJ, is_positive_JO.astype(np.float32))
    total_BC = expected(weights_BJ, utility_CJ.T) + term.of(scores_BO, is_positive_CO)
    drafts = model.draft(asked, DecodingConfig())
    for draft, total_C in zip(drafts, total_BC, strict=True):
        assert total_C[candidates.index(draft.reports[0])] == pytest.approx(total_C.max(), abs=1e-4)


def test_every_study_is_in_the_ridge_and_in_the_findings(fitted: Path, bounded: Path) -> None:
    ids = load_fitted(fitted / "run").fitted.texts["ids"]
    assert load_fitted(bounded).fitted.texts["ids"] == ids and len(ids) > BOUNDS["studies"]
    positive_JO = array(bounded, "is_positive_jo")
    assert (positive_JO == array(fitted / "run", "is_positive_jo")).all()
    for view in range(2):
        known_JK = array(bounded, f"view{view}_studies").T
        wanted_KO = weighted_sums(known_JK, positive_JO - positive_JO.mean(0))
        assert array(bounded, f"view{view}_findings") == pytest.approx(wanted_KO, rel=1e-3, abs=1e-3)
        assert (np.abs(known_JK).sum(1) > 0).sum() == (
            np.abs(array(fitted / "run", f"view{view}_studies").T).sum(1) > 0
        ).sum()
    assert "chosen on 120 of the studies" in (bounded.parent / "said.txt").read_text()


def test_beyond_the_bounds_it_still_depends_on_the_image(fitted: Path, bounded: Path) -> None:
    drafts = reporter_of(bounded).draft(features(fitted), DecodingConfig())
    reports = [draft.reports[0] for draft in drafts]
    own, others = macro_f1(reports, texts(fitted)), macro_f1(reports[1:] + reports[:1], texts(fitted))
    assert own > 1.5 * others
    assert all(draft.studies and draft.probabilities for draft in drafts)


def test_evidence_is_of_single_studies(fitted: Path, bounded: Path) -> None:
    """Also where a reference stands for several: those named add the most of all training studies."""
    model, ids = reporter_of(bounded), load_fitted(bounded).fitted.texts["ids"]
    for study in features(fitted)[:5]:
        draft = model.draft([study], DecodingConfig())[0]
        added_J = model.contributions(study, draft.reports[0])
        named = [added_J[ids.index(one.id)] for one in draft.studies]
        assert named == pytest.approx(np.sort(added_J)[::-1][: len(named)].tolist())


def test_a_folder_without_features_says_why_it_cannot_forget(bounded: Path) -> None:
    one = load_fitted(bounded).fitted.texts["ids"][0]
    assert not [name for name in load_fitted(bounded).fitted.weights if name.endswith("_features")]
    with pytest.raises(InputError, match=r"keeps the features of none: above --method.studies \(120\).*train it again"):
        forget(bounded, [one], print)


def test_more_candidates_than_references_are_needed(fitted: Path) -> None:
    with pytest.raises(InputError, match=r"--method.most-candidates 50.*at least --method.references \(60\)"):
        small(fitted / "weights.safetensors", most_candidates=50, references=60)


def test_references_and_candidates_stand_for_all_reports(fitted: Path) -> None:
    reports = list(load_fitted(fitted / "run").fitted.texts["reports"])
    found = References.of(reports, RuleLabeler(), candidates=60, references=40)
    counts = Counter(reports)
    assert len(found.candidates) == len(set(found.candidates)) == 60 and len(found.texts) <= 40
    assert set(found.texts) <= set(found.candidates) <= set(reports)
    assert found.shares_L.sum() == pytest.approx(1)
    for text, share in zip(found.texts, found.shares_L, strict=True):
        assert share * len(reports) >= counts[text] - 1e-9  # each reference stands for itself at least
    patterns = {tuple(row) for row in found.is_positive_DO}
    rare = [one for one, count in Counter(map(tuple, found.is_positive_DO)).items() if count == 1]
    said = {tuple(row) for row in found.is_positive_CO}
    assert len(said) > 0.8 * min(len(patterns), 60 - 40) and rare
    whole = References.of(reports, RuleLabeler(), candidates=20_000, references=4096)
    assert whole.candidates == whole.texts == list(dict.fromkeys(reports))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ridge 1:", "weights"])
def test_a_killed_fit_leaves_no_model_and_its_rerun_equals_an_unbroken_one(
    fitted: Path, tmp_path: Path, moment: str
) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom rayscribe import checkpoint\n"
        "from test_consensus import small\nfrom rayscribe.training.run import train_method\n"
        "fitted, run, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
        "def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if moment == 'weights': checkpoint.write_tensors = die\n"
        "train_method(small(fitted / 'weights.safetensors'), fitted / 'world.parquet', run, features=fitted / 'features',\n"
        "    notify=lambda text: die() if text.startswith(moment) else None)\n"
    )
    paths = os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, str(fitted), str(tmp_path / "run"), moment]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    config = small(fitted / "weights.safetensors")
    files = {"data": fitted / "world.parquet", "run": tmp_path / "run", "features": fitted / "features"}
    train_method(config, **files, resume=True)
    for name in ("model.json", "README.md"):
        assert (tmp_path / "run" / name).read_bytes() == (fitted / "run" / name).read_bytes()
    found, wanted = (load_fitted(folder / "run").fitted.weights for folder in (tmp_path, fitted))
    assert {name: one.numpy().tobytes() for name, one in found.items()} == {
        name: one.numpy().tobytes() for name, one in wanted.items()
    }
    files_left = {path.name for path in (tmp_path / "run").iterdir()}
    assert files_left <= {
        path.name for path in (fitted / "run").iterdir()
    }  # other tests note their looks at test there


def reporter_of(run: Path) -> Any:
    trained = load_fitted(run)
    return ConsensusReporter(trained.config, trained.fitted)
