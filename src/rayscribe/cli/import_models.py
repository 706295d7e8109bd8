"""`rayscribe import-r2gen`: a published checkpoint to a model folder.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path
from typing import Literal

from rayscribe.cli.arguments import parsed


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
        from rayscribe.cli.import_r2gen import convert

        convert(checkpoint, data, out, threshold=threshold, max_length=max_length, cleaning=cleaning)
        print(f"wrote {out}\nnext: rayscribe generate --model {out} --data {data} --split test --out predictions.jsonl")

    parsed(converted, arguments, "import-r2gen")
