"""The verbs of the command line, one line each. Their modules are imported when a verb runs, so `--help` answers at once."""

import errno
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayscribe import __version__
from rayscribe.errors import DISCLAIMER, InputError, unknown_name

WIDTH = 80  # columns of a terminal that nobody has widened


@dataclass(frozen=True, slots=True)
class Verb:
    """What `rayscribe NAME` runs: `function` of `rayscribe.cli.MODULE`, called with the words after the name."""

    name: str
    group: str
    arguments: str
    "as the overview shows them"
    summary: str
    module: str
    function: str

    def run(self, arguments: list[str]) -> None:
        function: Callable[[list[str]], None] = vars(importlib.import_module(f"rayscribe.cli.{self.module}"))[
            self.function
        ]
        function(arguments)


ALL_VERBS = (
    Verb("prepare", "Data", "SOURCE", "check a data set and write its manifest (Parquet)", "prepare", "prepare"),
    Verb("shard", "Data", "DATA", "pack small copies of the images into a few large files", "shard", "shard"),
    Verb("resplit", "Data", "DATA", "draw random splits, so that a score rests on several", "resplit", "resplit_verb"),
    Verb("audit", "Data", "DATA", "find copies, label shift and shared patients in a split", "inspect", "audit_verb"),
    Verb("label", "Data", "TABLE", "label reports with the 14 CheXpert observations", "inspect", "label_verb"),
    Verb("deidentify", "Data", "FILE...", "copy DICOM images without names, dates, private tags", "deidentify", "deidentify"),
    Verb("build", "Data", "KIND DATA", "negatives, entities, retrieval, priors or a graph", "build", "build"),
    Verb("train", "Train", "RECIPE", "train a report model; without RECIPE, list the recipes", "train", "train_verb"),
    Verb("classify", "Train", "KIND", "train, test, tune and use classifiers of findings", "classify", "classify"),
    Verb("llm", "Train", "KIND", "tune vision LLMs with LoRA, or use them as they come", "llm", "llm"),
    Verb("generate", "Use", "", "write a report for every study of a split", "generate", "generate_verb"),
    Verb("predict", "Use", "IMAGE...", "draft a report from the images of one study", "generate", "predict_verb"),
    Verb("export", "Use", "KIND", "convert a draft to DICOM SR, PDF or FHIR; share a model", "export", "export"),
    Verb("forget", "Use", "MODEL ID...", "remove training studies from a consensus model, exactly", "forget", "forget_verb"),
    Verb("import-r2gen", "Use", "FILE", "convert a published R2Gen or R2GenCMN checkpoint", "import_models", "import_r2gen"),
    Verb("info", "Use", "[PATH]", "describe a manifest, a model or the installation", "inspect", "info"),
    Verb("evaluate", "Score", "FILE", "score predictions, with intervals, floors and alarms", "evaluate", "evaluate_verb"),
    Verb("compare", "Score", "FILE...", "put score files into one table, with tests", "evaluate", "compare_verb"),
    Verb("frontier", "Score", "", "draw overlap against findings, with a system as a point", "frontier", "frontier_verb"),
    Verb("reader-study", "Score", "A B", "have readers compare two systems blind; count votes", "reader_study", "reader_study"),
    Verb("serve", "Serve", "", "serve models over HTTP, with a page to edit drafts", "serve", "serve"),
    Verb("api-key", "Serve", "NAME", "make an API key for `serve`", "serve", "api_key"),
    Verb("worker", "Serve", "", "draft reports for a PACS: images in, DICOM SR back", "worker", "worker"),
    Verb("demo", "Tools", "", "draw X-rays, train a model and score it in two minutes", "demo", "demo_verb"),
    Verb("completion", "Tools", "SHELL", "print a script that completes words in bash or zsh", "completion", "completion"),
)  # fmt: skip

_RENAMED = {
    "mine-negatives": "build negatives",
    "extract-entities": "build entities",
    "build-retrieval": "build retrieval",
    "build-priors": "build priors",
    "build-graph": "build graph",
}
"Verbs of version 0.3 and their names today."


def main() -> None:
    """Runs a verb. A user's mistake is one line and exit code 1; an interrupt is exit code 130."""
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(status)
    except InputError as error:
        sys.exit(f"rayscribe: {error}")
    except UnicodeDecodeError as error:
        sys.exit(f"rayscribe: a table is not UTF-8 ({error}); save it as UTF-8")
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        _can_print()
        sys.exit(141)
    except OSError as error:
        place = (error.filename2 if _is_full(error) else None) or error.filename  # of a copy, what was written
        place = place or (None if _can_print() else "standard output")
        sys.exit(f"rayscribe: {f'{place}: ' if place else ''}{error.strerror or error}; {_advice(error)}")
    except KeyboardInterrupt:
        print(
            "rayscribe: interrupted; `train` and `classify train` continue with --resume, `generate` by itself",
            file=sys.stderr,
        )
        sys.exit(130)


def _can_print() -> bool:
    """Whether standard output can be written. If not, drops the rest, which Python would try to write at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _is_full(error: OSError) -> bool:
    """pyarrow gives its errors no number."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def _advice(error: OSError) -> str:
    """What to do about an error of the system."""
    first = "free some disk space" if _is_full(error) else "fix this"
    return f"{first} and repeat the command; an interrupted run continues where it stopped"


def run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verbs = {verb.name: verb for verb in ALL_VERBS}
    if arguments[0] in _RENAMED:
        raise InputError(f"`rayscribe {arguments[0]}` is now `rayscribe {_RENAMED[arguments[0]]}`")
    if arguments[0] not in verbs:
        raise InputError(unknown_name("verb", arguments[0], [verb.name for verb in ALL_VERBS]))
    verbs[arguments[0]].run(list(arguments[1:]))
    return 0


def overview() -> str:
    """What `rayscribe --help` prints: the verbs by group, a line each."""
    lines = [
        f"rayscribe {__version__}: chest X-rays to draft radiology reports",
        "",
        "usage: rayscribe VERB [options]; `rayscribe VERB --help` lists the options",
    ]
    group = ""
    for verb in ALL_VERBS:
        if verb.group != group:
            group = verb.group
            lines += ["", group]
        lines.append(f"  {verb.name + ' ' + verb.arguments:19} {verb.summary}")
    return "\n".join([*lines, "", textwrap.fill(DISCLAIMER, WIDTH)])
