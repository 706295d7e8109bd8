"""What the settings of a run must be together; each part checks its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscribe.config_methods import DiagnosisConfig, IthnConfig, JimaConfig, KifConfig, need

if TYPE_CHECKING:
    from rayscribe.config import RunConfig


def check_together(config: RunConfig) -> None:
    """Raises InputError that names a flag which does not go with the others."""
    frozen = not config.backbone.trainable
    need(config.train.metric != "auroc", "--train.metric", "auroc", "reports have no ROC curve; it is for classifiers")
    need(
        not (frozen and config.images.flip),
        "--images.flip",
        "",
        "a frozen image encoder is fed from its cache, unflipped",
    )
    need(
        not (frozen and config.images.rotation),
        "--images.rotation",
        config.images.rotation,
        "a frozen image encoder is fed from its cache, unrotated",
    )
    need(
        not (config.ithn.enabled and config.images.flip),
        "--images.flip",
        "",
        "with ITHN a flip could turn a mined report into the true one: left and right change places in its words",
    )
    need(config.ithn.enabled or config.ithn == IthnConfig(), "--ithn", "", "its settings need --ithn.enabled")
    is_jima = config.learns_entities
    need(is_jima or config.jima == JimaConfig(), "--jima", "", "its settings need --model.method jima")
    need(
        not (is_jima and config.images.flip),
        "--images.flip",
        "",
        "JIMA's entities say left and right of the image as it is; they are not flipped",
    )
    curriculum = config.jima.report_curriculum or config.jima.entity_curriculum
    need(
        not (is_jima and curriculum) or config.jima.warmup < config.train.epochs,
        "--jima.warmup",
        config.jima.warmup,
        f"no curriculum begins within --train.epochs {config.train.epochs}; give a shorter warm-up, or "
        "--jima.no-report-curriculum --jima.no-entity-curriculum",
    )
    need(
        not (is_jima and config.ithn.enabled and config.ithn.image == "backbone"),
        "--ithn.image",
        config.ithn.image,
        "no report's loss reaches JIMA's image encoder; give --ithn.image encoded",
    )
    need(
        not (is_jima and config.ithn.enabled and config.ithn.harden == "step"),
        "--ithn.harden",
        config.ithn.harden,
        "JIMA's epochs differ in length; give epoch",
    )
    need(
        not (is_jima and config.jima.training == "alternating" and config.train.accumulate > 1),
        "--train.accumulate",
        config.train.accumulate,
        "alternating steps take one batch; give 1, or --jima.training joint",
    )
    _check_diagnosis(config)


def _check_diagnosis(config: RunConfig) -> None:
    diagnosis, diagnoses, is_kif = config.diagnosis, config.diagnoses, config.model.method == "kif"
    is_used = diagnoses or diagnosis == DiagnosisConfig()
    need(is_used, "--diagnosis", "", "its settings need --model.method promptmrg or kif")
    need(is_kif or config.kif == KifConfig(), "--kif", "", "its settings need --model.method kif")
    flips = diagnoses and diagnosis.memory and config.images.flip
    need(not flips, "--images.flip", "", "reports are retrieved for the image as it is")
    need(
        config.kif.query == "none" or diagnosis.memory,
        "--kif.query",
        config.kif.query,
        "is the query of the retrieved reports; it needs --diagnosis.memory",
    )
