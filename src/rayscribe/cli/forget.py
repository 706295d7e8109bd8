"""`rayscribe forget`: takes training studies out of a fitted model.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path

from rayscribe.cli.arguments import parsed


def forget_verb(arguments: list[str]) -> None:
    import tyro

    def forgotten(model: tyro.conf.Positional[Path], ids: tyro.conf.Positional[tuple[str, ...]]) -> None:
        """Removes training studies from a consensus model, exactly: as if it had never been fitted on them.

        Fits again from what the folder keeps; needs neither the manifest nor the images. Their reports, ids and features leave
        the folder; the manifest, feature caches, predictions, exports and backups are other files, and so is a model that a
        running service has loaded. Refused for a model of more studies than --method.studies, which keeps no features.

        Args:
            model: the model folder
            ids: ids of training studies; take them from the manifest first, so that no later training reads them
        """
        from rayscribe.training.forget import forget

        done = forget(model, ids, print)
        told = ", ".join(f"{name} {value:.4f}" for name, value in done.scores.items())
        print(f"forgot {done.studies} training studies, {done.remaining} remain; {told}; wrote {model}")
        if done.same_patients:
            others = ", ".join(done.same_patients)
            print(f"note: {len(done.same_patients)} other training studies are of the same patients: {others}")
        for name in done.traces:
            print(f"note: {model / name} still names a forgotten study, or holds its report; delete it")

    parsed(forgotten, arguments, "forget")
