"""Functions that return a RunConfig: the published settings of a method, each value with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rayscribe.config import BackboneConfig, DecodingConfig, ModelConfig, RunConfig, TextConfig, TrainConfig
from rayscribe.config_methods import DiagnosisConfig, IthnConfig, JimaConfig, KifConfig
from rayscribe.data.images import ImageConfig


def r2gen() -> RunConfig:
    """R2Gen on IU X-Ray, as its released script trains it (Chen et al., 2020; spec 2.4)."""
    return RunConfig(
        model=ModelConfig(method="r2gen"),
        train=TrainConfig(
            epochs=100,
            patience=50,
            batch_size=16,
            lr=1e-4,  # IU script: lr_ed
            lr_backbone=5e-5,  # IU script: lr_ve
            weight_decay=5e-5,
            amsgrad=True,
            clip_value=0.1,  # by value, in the trainer
            schedule="step",
            step_epochs=50,  # IU script; the paper says x 0.8 every epoch
            gamma=0.1,
        ),
        seed=9223,  # IU script
    )


def baseline() -> RunConfig:
    """The plain transformer encoder-decoder: the paper's BASE, under R2Gen's settings."""
    return replace(r2gen(), model=ModelConfig(method="baseline"))


def r2gen_cmn() -> RunConfig:
    """R2GenCMN on IU X-Ray, as its released script trains it (Chen et al., 2021; spec 3.4)."""
    return RunConfig(
        model=ModelConfig(method="r2gen_cmn"),
        train=TrainConfig(
            epochs=100,
            patience=50,
            batch_size=16,
            lr=5e-4,  # IU script: lr_ed
            lr_backbone=1e-4,  # IU script: lr_ve
            betas=(0.9, 0.98),  # IU script
            eps=1e-9,
            weight_decay=5e-5,
            amsgrad=True,
            clip_value=None,  # its trainer does not clip, unlike R2Gen's
            schedule="step",
            step_epochs=10,  # IU script; MIMIC: 3
            gamma=0.8,
        ),
        seed=7580,  # IU script
    )


def ithn() -> RunConfig:
    """R2GenCMN with increasingly hard negatives, as ITHN's released IU script trains it (spec 5.6)."""
    base = r2gen_cmn()
    return replace(base, train=replace(base.train, patience=25), ithn=IthnConfig(enabled=True))


def jima() -> RunConfig:
    """JIMA on IU X-Ray: sizes, batch, beams and curriculum of the paper, the rest of the released script (spec 4.6).

    The paper's rates (4e-4 for the entity task, 1e-5 for the report task, x 0.8 every epoch) are not the script's, which the
    published logs were made with; its batches of 32, six layers and five beams are not the paper's.
    """
    base = r2gen()
    return replace(
        base,
        model=ModelConfig(method="jima"),  # paper: 3 layers, 8 heads, 512
        train=replace(
            base.train,
            lr=1e-4,  # IU script: lr_ed
            lr_backbone=5e-5,  # IU script: lr_ve
            clip_value=None,
            clip_norm=1.0,  # joint training; alternating training clips by value 0.1
        ),
        jima=JimaConfig(),
        seed=9,  # IU script
    )


def promptmrg() -> RunConfig:
    """PromptMRG as its released script trains it (Jin et al., 2024; spec A1.5), with a decoder of our size.

    Needs the folder of `rayscribe build-retrieval`. The script's warm-up lasts 2,000 steps of its first epoch (MIMIC-CXR); its
    cosine ends at a tenth of the rate instead of 0. It clips every gradient at .1.
    """
    base = r2gen()
    return replace(
        base,
        text=TextConfig(max_length=100),  # words of a cleaned report
        model=ModelConfig(method="promptmrg", encoder_layers=0, patch_dropout=0.1),
        train=replace(
            base.train,
            epochs=6,
            patience=6,
            metric="ce_f1",
            label_smoothing=0.1,  # med.py
            optimizer="adamw",
            amsgrad=False,
            lr=5e-5,
            lr_backbone=5e-5,
            weight_decay=0.05,
            clip_value=0.1,
            schedule="cosine",
            warmup_steps=2000,
        ),
        diagnosis=DiagnosisConfig(),
        seed=456789,
    )


def promptmrg_bert() -> RunConfig:
    """The same with the published decoder: BERT's sizes, attention to the image encoder's own features (spec B1)."""
    return _with_bert(promptmrg())


def kif_isd() -> RunConfig:
    """KIF-ISD: PromptMRG with the knowledge graph, 10 epochs (spec A2.7); `--generations 2` adds the self-distillation."""
    base = promptmrg()
    return replace(
        base,
        model=replace(base.model, method="kif"),
        train=replace(base.train, epochs=10, patience=10),
        kif=KifConfig(),
    )


def kif_isd_bert() -> RunConfig:
    """The same with the published decoder."""
    return _with_bert(kif_isd())


def _with_bert(base: RunConfig) -> RunConfig:
    sizes = {"width": 768, "heads": 12, "feedforward": 3072, "decoder_layers": 12, "dropout": 0.1}
    return replace(base, model=replace(base.model, decoder="bert", **sizes))  # type: ignore[arg-type]


def demo() -> RunConfig:
    """A small R2Gen that learns to use drawn X-rays in a minute on two CPU cores; the sizes are ours.

    No dropout and no patch encoder: with either, 400 studies teach it the wording long before they teach it to look.
    """
    return RunConfig(
        images=ImageConfig(size=96, resize=104),
        backbone=BackboneConfig(name="test_resnet"),
        model=ModelConfig(
            method="r2gen",
            width=128,
            heads=4,
            feedforward=256,
            encoder_layers=0,
            decoder_layers=1,
            memory_heads=4,
            dropout=0.0,
            patch_dropout=0.0,
        ),
        train=TrainConfig(
            epochs=12,
            optimizer="adamw",
            lr=2e-3,
            lr_backbone=2e-3,
            weight_decay=0.01,
            schedule="cosine",
            warmup_steps=20,
            clip_value=None,
            clip_norm=1.0,
        ),
        decoding=DecodingConfig(beams=1),
        seed=0,
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "baseline": baseline,
    "r2gen": r2gen,
    "r2gen_cmn": r2gen_cmn,
    "ithn": ithn,
    "jima": jima,
    "promptmrg": promptmrg,
    "promptmrg_bert": promptmrg_bert,
    "kif_isd": kif_isd,
    "kif_isd_bert": kif_isd_bert,
    "demo": demo,
}
