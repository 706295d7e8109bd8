"""`rayscribe llm`: tune a vision LLM, use one as it comes, compose a small one, merge adapters, plan a run, go on by reward.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from rayscribe.cli.arguments import choice, parsed
from rayscribe.errors import DISCLAIMER, need_packages


def llm(arguments: list[str]) -> None:
    kinds: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "wrap": _wrap,
        "compose": _compose,
        "merge": _merge,
        "plan": _plan,
        "reward": _reward,
    }
    kind = choice(arguments, tuple(kinds), "kind", "rayscribe llm KIND [options]")
    need_packages("vlm", "transformers", "peft", "accelerate")
    kinds[kind](arguments[1:])


def _train(arguments: list[str]) -> None:
    import tyro

    from rayscribe.vision_llm.config import LLM_RECIPES, LlmConfig

    recipe = choice(
        arguments, tuple(LLM_RECIPES), "recipe", "rayscribe llm train RECIPE [options] --data data.parquet --run DIR"
    )

    def train(
        data: Path,
        run: Path,
        config: Annotated[LlmConfig, tyro.conf.arg(name="")] = LLM_RECIPES[recipe](),  # noqa: B008  # frozen
        resume: bool = False,
        download: bool = False,
        device: str | None = None,
    ) -> None:
        """Tunes the adapters of a vision LLM. The run folder becomes a model folder.

        Args:
            data: the manifest that `rayscribe prepare` wrote
            run: the folder of the run; never overwritten
            resume: continue an interrupted run, with the same settings
            download: download the base model from the Hugging Face hub if it is not on this disk
            device: cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none
        """
        from rayscribe.models.device import show_only

        show_only(device)
        from rayscribe.vision_llm.training import train_llm

        train_llm(config, data, run, resume=resume, download=download)
        if os.environ.get("RANK", "0") == "0":
            print(f"next: rayscribe generate --model {run} --data {data} --split test --out predictions.jsonl")

    parsed(train, arguments[1:], f"llm train {recipe}")


def _wrap(arguments: list[str]) -> None:
    import tyro

    from rayscribe.vision_llm.config import LLM_RECIPES, LlmConfig

    recipe = choice(arguments, tuple(LLM_RECIPES), "recipe", "rayscribe llm wrap RECIPE [options] --out DIR")

    def wrap(
        out: Path,
        config: Annotated[LlmConfig, tyro.conf.arg(name="")] = LLM_RECIPES[recipe](),  # noqa: B008  # frozen
        download: bool = False,
    ) -> None:
        """Makes a model folder from an untuned base model, to compare with a tuned one. Trains and copies nothing.

        Args:
            out: the folder to write
            download: download the base model from the Hugging Face hub if it is not on this disk
        """
        from rayscribe.vision_llm.folder import wrap_base

        wrap_base(config, out, download=download)
        print(f"wrote {out}. {DISCLAIMER}")

    parsed(wrap, arguments[1:], f"llm wrap {recipe}")


def _compose(arguments: list[str]) -> None:
    from rayscribe.config import BackboneConfig

    def compose(language: Path, out: Path, backbone: BackboneConfig, size: int = 224, seed: int = 0) -> None:
        """Joins an image encoder and a language model on disk to a LLaVA whose projector is untrained.

        Args:
            language: the folder of an instruction-tuned model that uses ChatML (SmolLM2, Qwen)
            out: the folder to write
            backbone: the image encoder; it stays frozen
            size: side of its input image in pixels
            seed: random seed of the projector's initial weights
        """
        from rayscribe.vision_llm.tower import compose as composed

        composed(language, backbone, out, size=size, seed=seed)
        print(f"wrote {out}\nnext: rayscribe llm train compact --base {out} --data data.parquet --run runs/compact")

    parsed(compose, arguments, "llm compose")


def _merge(arguments: list[str]) -> None:
    import tyro

    def merge(
        model: tyro.conf.Positional[Path],
        out: Path,
        base: str | None = None,
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
    ) -> None:
        """Merges base model and adapters into one self-contained transformers folder.

        Args:
            model: the folder that `llm train` wrote
            out: the folder to write
            base: where the base model is now, if it was moved
            dtype: data type of the merged weights
        """
        from rayscribe.vision_llm.folder import merge as merged

        merged(model, out, base=base, dtype=dtype)
        print(f"wrote {out}. {DISCLAIMER}")

    parsed(merge, arguments, "llm merge")


def _plan(arguments: list[str]) -> None:
    from rayscribe.vision_llm.lora import LoraSettings
    from rayscribe.vision_llm.plan import Workload

    def plan(
        base: Path | None = None,
        lora: LoraSettings = LoraSettings(),  # noqa: B008  # frozen
        work: Workload = Workload(),  # noqa: B008  # frozen
    ) -> None:
        """Estimates from its configuration how much memory and time it takes to tune a model. Loads no weights.

        Args:
            base: a folder with the model's config.json; by default Llama-3.2-11B-Vision
            lora: the adapters
            work: batch, tokens and steps
        """
        from rayscribe.vision_llm.plan import base_config, llama32_vision_config, plan_table
        from rayscribe.vision_llm.plan import plan as planned

        print(plan_table(planned(llama32_vision_config() if base is None else base_config(base), lora, work)))

    parsed(plan, arguments, "llm plan")


def _reward(arguments: list[str]) -> None:
    import tyro

    from rayscribe.vision_llm.reward import RewardTrainConfig

    def reward(
        model: tyro.conf.Positional[Path],
        data: Path,
        run: Path,
        config: Annotated[RewardTrainConfig, tyro.conf.arg(name="")] = RewardTrainConfig(),  # noqa: B008  # frozen
        base: str | None = None,
        resume: bool = False,
        device: str | None = None,
    ) -> None:
        """Trains a tuned model's adapters further, by reward (GRPO, with trl). The run folder becomes a model folder.

        Args:
            model: the folder that `llm train` wrote
            data: the manifest that `rayscribe prepare` wrote
            run: the folder of the run; never overwritten
            base: where the base model is now, if it was moved
            resume: continue an interrupted run, with the same settings
            device: cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none
        """
        from rayscribe.models.device import show_only

        show_only(device)
        from rayscribe.vision_llm.reward_training import train_reward

        train_reward(model, config, data, run, base=base, resume=resume)
        print(f"next: rayscribe generate --model {run} --data {data} --split test --out predictions.jsonl")

    need_packages("reward", "trl")
    parsed(reward, arguments, "llm reward")
