"""The reward of reward training: what earns it and what costs."""

from __future__ import annotations

import itertools
import sys
from subprocess import run

import pytest

from rayscribe.errors import InputError
from rayscribe.vision_llm.reward import (
    RewardConfig,
    RewardTrainConfig,
    mean_parts,
    report_parts,
    report_rewards,
)

NORMAL = "The heart is normal in size. The lungs are clear."
EFFUSION = "There is a small left pleural effusion. The heart is enlarged."
PNEUMOTHORAX = "There is a large right pneumothorax."
EDEMA = "Pulmonary edema with cardiomegaly."
REFERENCES = [NORMAL, EFFUSION, PNEUMOTHORAX, EDEMA]
SETTINGS = RewardConfig()
MOST = SETTINGS.clinical + SETTINGS.overlap


def mean(rewards: list[float]) -> float:
    return sum(rewards) / len(rewards)


def test_the_reference_itself_earns_the_most_there_is() -> None:
    assert report_rewards(REFERENCES, REFERENCES, SETTINGS) == pytest.approx([MOST] * 4)


def test_no_report_earns_more_than_the_most_or_less_than_the_least() -> None:
    texts = [*REFERENCES, "", "asdf", NORMAL + " " + EFFUSION]
    for written in itertools.product(texts, repeat=2):
        for cut in ([False, False], [True, True]):
            rewards = report_rewards(written, [NORMAL, EFFUSION], SETTINGS, cut=cut)
            assert all(-(SETTINGS.repeated + SETTINGS.unfinished) <= reward <= MOST + 1e-9 for reward in rewards)


@pytest.mark.parametrize("constant", REFERENCES)
def test_one_report_for_all_earns_less_than_a_correct_one_for_each(constant: str) -> None:
    reworded = [
        "Normal heart size. The lungs are clear.",
        "Small left pleural effusion. Enlarged heart.",
        "Large pneumothorax on the right.",
        "Cardiomegaly with pulmonary edema.",
    ]
    collapsed = report_rewards([constant] * 4, REFERENCES, SETTINGS)
    assert mean(collapsed) < mean(report_rewards(reworded, REFERENCES, SETTINGS))
    right = REFERENCES.index(constant)
    # Even on the study for which it is right word by word.
    assert collapsed[right] == pytest.approx(MOST - SETTINGS.repeated)


def test_what_is_repeated_is_the_share_of_reports_on_other_studies() -> None:
    written = [NORMAL, NORMAL, EFFUSION, NORMAL, PNEUMOTHORAX, EDEMA]
    references = [NORMAL, NORMAL, EFFUSION, EFFUSION, PNEUMOTHORAX, PNEUMOTHORAX]  # two reports a study
    repeated = [parts.repeated for parts in report_parts(written, references, SETTINGS)]
    assert repeated == [1 / 4, 1 / 4, 0, 2 / 4, 0, 0]


def test_letters_marks_and_the_order_of_sentences_do_not_hide_a_repetition() -> None:
    disguised = "the lungs are CLEAR.  The heart, is normal in size"
    repeated = [one.repeated for one in report_parts([NORMAL, disguised], [NORMAL, EFFUSION], SETTINGS)]
    assert repeated == [1, 1]


def test_the_same_report_for_studies_with_the_same_reference_is_no_repetition() -> None:
    again = "The lungs are clear. The heart is normal in size."
    rewards = report_rewards([NORMAL, NORMAL], [NORMAL, again], RewardConfig(overlap=0, clinical=1))
    assert rewards == [1, 1]


def test_the_order_of_the_studies_does_not_matter() -> None:
    written = [NORMAL, NORMAL, PNEUMOTHORAX, "", EFFUSION]
    references = [*REFERENCES, EFFUSION]
    cut = [False, True, False, False, False]
    rewards = report_rewards(written, references, SETTINGS, cut=cut)
    for order in itertools.permutations(range(5)):
        moved = report_rewards(
            [written[i] for i in order], [references[i] for i in order], SETTINGS, cut=[cut[i] for i in order]
        )
        assert moved == pytest.approx([rewards[i] for i in order])


@pytest.mark.parametrize("empty", ["", " \n", "...", "."])
def test_a_report_without_a_word_earns_nothing_and_costs(empty: str) -> None:
    parts = report_parts([empty, EFFUSION], [NORMAL, EFFUSION], SETTINGS)[0]
    assert (parts.clinical, parts.overlap, parts.unfinished) == (0, 0, 1)
    assert parts.total(SETTINGS) == -SETTINGS.unfinished


def test_a_cut_report_costs_what_the_settings_say() -> None:
    whole = report_rewards(REFERENCES, REFERENCES, SETTINGS)
    cut = report_rewards(REFERENCES, REFERENCES, SETTINGS, cut=[True, False, False, False])
    assert cut == pytest.approx([whole[0] - SETTINGS.unfinished, *whole[1:]])


def test_two_reports_without_a_positive_observation_agree() -> None:
    uncertain = "Possible pneumonia."
    either = "Questionable pleural effusion."
    assert [one.clinical for one in report_parts([either], [uncertain], SETTINGS)] == [1]
    assert [one.clinical for one in report_parts([EFFUSION], [uncertain], SETTINGS)] == [0]
    assert [one.clinical for one in report_parts([""], [uncertain], SETTINGS)] == [0]


def test_a_finding_that_is_missed_or_made_up_costs_clinical_reward() -> None:
    right, missed, made_up = report_parts(
        ["Pleural effusion. Enlarged heart.", "Pleural effusion.", "Pleural effusion. Enlarged heart. Pneumothorax."],
        [EFFUSION] * 3,
        SETTINGS,
    )
    assert right.clinical == 1
    assert missed.clinical == pytest.approx(2 / 3)
    assert made_up.clinical == pytest.approx(4 / 5)


def test_words_without_a_finding_pass_for_a_normal_report() -> None:
    """A known way to be paid for nothing, which the documentation names."""
    assert [one.clinical for one in report_parts(["zzz qqq"], [NORMAL], SETTINGS)] == [1]


def test_the_means_of_a_batch_add_up_to_the_mean_reward() -> None:
    written = [NORMAL, NORMAL, "", EDEMA]
    means = mean_parts(report_parts(written, REFERENCES, SETTINGS), SETTINGS)
    assert means["reward"] == pytest.approx(mean(report_rewards(written, REFERENCES, SETTINGS)))
    paid = SETTINGS.clinical * means["clinical"] + SETTINGS.overlap * means["overlap"]
    taken = SETTINGS.repeated * means["repeated"] + SETTINGS.unfinished * means["unfinished"]
    assert means["reward"] == pytest.approx(paid - taken)


def test_no_reports_no_rewards() -> None:
    assert report_rewards([], [], SETTINGS) == []


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(InputError, match="1 of 2 references are empty"):
        report_rewards([NORMAL, NORMAL], [NORMAL, " . "], SETTINGS)
    with pytest.raises(InputError, match="1 reports for 2 references"):
        report_rewards([NORMAL], [NORMAL, EFFUSION], SETTINGS)
    with pytest.raises(InputError, match=r"--reward\.repeated 2: a weight from 0 to 1"):
        RewardConfig(repeated=2)
    with pytest.raises(InputError, match=r"or --reward\.overlap above 0"):
        RewardConfig(clinical=0, overlap=0)
    with pytest.raises(InputError, match="--generations 1: at least 2"):
        RewardTrainConfig(generations=1)
    with pytest.raises(InputError, match="--batch-size 3: must divide"):
        RewardTrainConfig(batch_size=3)


def test_the_reward_needs_neither_torch_nor_trl() -> None:
    code = "import sys, rayscribe.vision_llm.reward; assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
