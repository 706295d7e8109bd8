"""The verbs of the command line. Heavy imports stand inside the verbs, so that `--help` answers at once."""

import os
import sys
from collections.abc import Callable, Sequence

from rayscribe import __version__
from rayscribe.errors import DISCLAIMER, InputError

OVERVIEW = f"""rayscribe {__version__}: chest X-rays to draft radiology reports

  rayscribe demo                              drawn X-rays, a trained model, scores and a page, in two minutes
  rayscribe prepare iu-xray|table|phantom     a data set to one checked manifest (Parquet)
  rayscribe shard DATA                        a manifest's images, made small, into a few large files
  rayscribe build KIND DATA                   what a method reads beside the manifest; `train` builds it too
  rayscribe train RECIPE[+PLUG_IN]            a manifest to a model folder; `rayscribe train` names the recipes
  rayscribe generate                          a model and a manifest split to predictions.jsonl
  rayscribe evaluate PREDICTIONS              predictions to scores with intervals, floors, tests and alarms
  rayscribe compare A.json B.json...          score files to one table with tests, if their protocols agree
  rayscribe reader-study A B                  two systems' reports to a blind page for readers; `score` counts their votes
  rayscribe label TABLE                       reports to the 14 CheXpert observations
  rayscribe audit DATA                        what is wrong with a split: copies, label shift, shared patients
  rayscribe classify train|test|tune|predict  classifiers of findings: one model a finding, or one for all
  rayscribe llm train|wrap|compose|merge|plan|reward   vision LLMs tuned with LoRA (Llama-3.2-Vision and its kin)
  rayscribe predict IMAGE...                  one study's images (PNG, JPEG, DICOM) to a draft report
  rayscribe export model MODEL                a model folder to a copy that can be passed on
  rayscribe export sr|pdf|fhir|... DRAFT      a draft of `predict --out` to DICOM SR, PDF, Encapsulated PDF, FHIR, text, JSON
  rayscribe serve --model DIR                 models as a service with a page: images in, an editable draft out
  rayscribe api-key NAME                      a key for those who may ask a service beyond this machine
  rayscribe worker                            images from a PACS (C-STORE, DICOMweb) to draft reports as DICOM SR in the PACS
  rayscribe deidentify FILE|FOLDER...         DICOM images to copies without names, dates, private tags (not burnt-in text)
  rayscribe import-r2gen CHECKPOINT           a published R2Gen or R2GenCMN .pth to a model folder
  rayscribe info [PATH]                       what a manifest or model folder holds; versions

`rayscribe VERB --help` shows a verb's options.
{DISCLAIMER}"""


def main() -> None:
    """Runs a verb. A user's mistake is one line and exit code 1; an interrupt is exit code 130."""
    try:
        sys.exit(run(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"rayscribe: {error}")
    except UnicodeDecodeError as error:
        sys.exit(f"rayscribe: a table is not UTF-8 ({error}); save it as UTF-8")
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"rayscribe: {place}{error.strerror or error}; mend it and repeat, an interrupted run goes on")
    except KeyboardInterrupt:
        print(
            "rayscribe: interrupted; `train`, `classify train` with --resume, and `generate` go on",
            file=sys.stderr,
        )
        sys.exit(130)


def run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] in _RENAMED:
        raise InputError(f"`rayscribe {arguments[0]}` is now `rayscribe {_RENAMED[arguments[0]]}`")
    if arguments[0] not in _VERBS:
        raise InputError(f"no verb {arguments[0]!r}; there are {', '.join(_VERBS)}")
    _VERBS[arguments[0]](list(arguments[1:]))
    return 0


def _prepare(arguments: list[str]) -> None:
    from rayscribe.cli.prepare import prepare

    prepare(arguments)


def _shard(arguments: list[str]) -> None:
    from rayscribe.cli.shard import shard

    shard(arguments)


def _build(arguments: list[str]) -> None:
    from rayscribe.cli.build import build

    build(arguments)


def _train(arguments: list[str]) -> None:
    from rayscribe.cli.train import train_verb

    train_verb(arguments)


def _generate(arguments: list[str]) -> None:
    from rayscribe.cli.generate import generate_verb

    generate_verb(arguments)


def _evaluate(arguments: list[str]) -> None:
    from rayscribe.cli.evaluate import evaluate_verb

    evaluate_verb(arguments)


def _compare(arguments: list[str]) -> None:
    from rayscribe.cli.evaluate import compare_verb

    compare_verb(arguments)


def _reader_study(arguments: list[str]) -> None:
    from rayscribe.cli.reader_study import reader_study

    reader_study(arguments)


def _label(arguments: list[str]) -> None:
    from rayscribe.cli.inspect import label

    label(arguments)


def _audit(arguments: list[str]) -> None:
    from rayscribe.cli.inspect import audit_verb

    audit_verb(arguments)


def _classify(arguments: list[str]) -> None:
    from rayscribe.cli.classify import classify

    classify(arguments)


def _llm(arguments: list[str]) -> None:
    from rayscribe.cli.llm import llm

    llm(arguments)


def _predict(arguments: list[str]) -> None:
    from rayscribe.cli.generate import predict_verb

    predict_verb(arguments)


def _export(arguments: list[str]) -> None:
    from rayscribe.cli.export import export

    export(arguments)


def _serve(arguments: list[str]) -> None:
    from rayscribe.cli.serve import serve

    serve(arguments)


def _api_key(arguments: list[str]) -> None:
    from rayscribe.cli.serve import api_key

    api_key(arguments)


def _worker(arguments: list[str]) -> None:
    from rayscribe.cli.worker import worker

    worker(arguments)


def _deidentify(arguments: list[str]) -> None:
    from rayscribe.cli.deidentify import deidentify

    deidentify(arguments)


def _import_r2gen(arguments: list[str]) -> None:
    from rayscribe.cli.import_models import import_r2gen

    import_r2gen(arguments)


def _demo(arguments: list[str]) -> None:
    from rayscribe.cli.demo import demo_verb

    demo_verb(arguments)


def _info(arguments: list[str]) -> None:
    from rayscribe.cli.inspect import info

    info(arguments)


_VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": _demo,
    "prepare": _prepare,
    "shard": _shard,
    "build": _build,
    "train": _train,
    "generate": _generate,
    "evaluate": _evaluate,
    "compare": _compare,
    "reader-study": _reader_study,
    "label": _label,
    "audit": _audit,
    "classify": _classify,
    "llm": _llm,
    "predict": _predict,
    "export": _export,
    "serve": _serve,
    "api-key": _api_key,
    "worker": _worker,
    "deidentify": _deidentify,
    "import-r2gen": _import_r2gen,
    "info": _info,
}

_RENAMED = {
    "mine-negatives": "build negatives",
    "extract-entities": "build entities",
    "build-retrieval": "build retrieval",
    "build-priors": "build priors",
    "build-graph": "build graph",
}
"Verbs of version 0.3 and what they are called today."
