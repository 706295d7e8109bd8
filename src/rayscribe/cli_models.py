"""The verbs that turn one model folder or checkpoint into another: `export` and `import-r2gen`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path
from typing import Literal

from rayscribe.arguments import choice, parsed
from rayscribe.errors import DISCLAIMER


def export(arguments: list[str]) -> None:
    import tyro

    def copied(model: tyro.conf.Positional[Path], out: Path, terms_allow_it: bool = False) -> None:
        """Copies a model for others: without logs, training states and local paths.

        Args:
            model: the folder of a report model or a classifier
            out: the folder to write
            terms_allow_it: the model learned from restricted data, and their terms allow that it is passed on
        """
        from rayscribe.export import export_model

        export_model(model, out, terms_allow_it=terms_allow_it)
        print(f"wrote {out}. {DISCLAIMER}")

    kind = choice(arguments, ("model",), "kind", "rayscribe export KIND [options] --out FOLDER")
    parsed(copied, arguments[1:], f"export {kind}")


def import_r2gen(arguments: list[str]) -> None:
    import tyro

    def converted(
        checkpoint: tyro.conf.Positional[Path],
        data: Path,
        out: Path,
        threshold: int = 3,
        max_length: int = 60,
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
    ) -> None:
        """Converts a published R2Gen or R2GenCMN checkpoint (.pth) into a model folder.

        Args:
            checkpoint: model_best.pth or the like
            data: the manifest whose training reports the vocabulary is built from; the checkpoint does not hold it
            out: the model folder to write
            threshold: 3 for IU X-Ray, 10 for MIMIC-CXR
            max_length: 60 for IU X-Ray, 100 for MIMIC-CXR
            cleaning: the rules that the checkpoint was trained under
        """
        from rayscribe.import_r2gen import convert

        convert(checkpoint, data, out, threshold=threshold, max_length=max_length, cleaning=cleaning)
        print(f"wrote {out}\nnext: rayscribe generate --model {out} --data {data} --split test --out predictions.jsonl")

    parsed(converted, arguments, "import-r2gen")
