"""`rayscribe completion`: a script that completes verbs, kinds and recipes in bash or zsh.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import io
import re
from contextlib import redirect_stdout, suppress
from typing import Literal

from rayscribe.cli.arguments import parsed
from rayscribe.errors import InputError

_SCRIPT = """\
_rayscribe() {{
    local words=""
    case "${{COMP_WORDS[*]:1:COMP_CWORD-1}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _rayscribe rayscribe
"""


def completion(arguments: list[str]) -> None:
    import tyro

    def script(shell: tyro.conf.Positional[Literal["bash", "zsh"]]) -> None:
        """Prints a script that completes verbs, kinds and recipes, and file names after them.

        bash: eval "$(rayscribe completion bash)" in ~/.bashrc; zsh: the same with zsh, in ~/.zshrc after compinit.

        Args:
            shell: bash or zsh
        """
        from rayscribe.cli.main import ALL_VERBS

        words: dict[tuple[str, ...], list[str]] = {(): [verb.name for verb in ALL_VERBS]}
        for verb in ALL_VERBS:
            kinds = words[verb.name,] = _kinds(verb.name)
            words |= {(verb.name, kind): _kinds(verb.name, kind) for kind in kinds if verb.name != "train"}
        cases = [f'        "{" ".join(given)}") words="{" ".join(known)}";;' for given, known in words.items() if known]
        start = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
        print(start + _SCRIPT.format(cases="\n".join(cases)), end="")

    parsed(script, arguments, "completion")


def _kinds(*given: str) -> list[str]:
    """What `--help` lists as the next word, if it lists any."""
    from rayscribe.cli.main import run

    said = io.StringIO()
    with suppress(SystemExit, InputError, ImportError), redirect_stdout(said):
        run([*given, "--help"])
    listed = re.search(r"^(?:kind|source|recipe)s: (.+)$", said.getvalue(), re.MULTILINE)
    return [word for word in listed[1].split(", ") if "..." not in word] if listed else []
