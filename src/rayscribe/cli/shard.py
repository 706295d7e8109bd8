"""`rayscribe shard`: a manifest's images into a few large files.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from functools import partial
from pathlib import Path

from rayscribe.cli.arguments import parsed
from rayscribe.progress import progress_bar


def shard(arguments: list[str]) -> None:
    import tyro

    def write(
        data: tyro.conf.Positional[Path], out: Path, side: int = 256, studies_per_shard: int = 500, seed: int = 0
    ) -> None:
        """Writes small copies of all images into tar files (WebDataset's layout), with a manifest that reads from them.

        Use it for large data on slow disks or file servers, and pass OUT/data.parquet wherever you passed DATA. An interrupted
        run continues where it stopped.

        Args:
            data: the manifest
            out: the folder to write
            side: the shorter side of a copy in pixels; take the --images.resize of the training, so that crops stay the same
            studies_per_shard: studies per file
            seed: random seed of the order within each split
        """
        from rayscribe.data.manifest import read_manifest
        from rayscribe.data.shard_writing import write_shards

        found = write_shards(
            read_manifest(data),
            out,
            side=side,
            studies_per_shard=studies_per_shard,
            seed=seed,
            progress=partial(progress_bar, desc="writing", unit="shard"),
        )
        images = found.provenance.get("images", "all")
        print(f"wrote {out}: {len(found.studies)} studies, {images} images")
        print(f"next: rayscribe train r2gen --data {out / 'data.parquet'} --run runs/r2gen")

    parsed(write, arguments, "shard")
