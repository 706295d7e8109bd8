"""Code outside `methods/` names no paper: neither an identifier nor a string, documentation aside."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import rayscribe

SOURCE = Path(rayscribe.__file__).parent
PAPERS = re.compile(r"\b(jima|ithn|kif|promptmrg|distill)", re.IGNORECASE)


def said(tree: ast.AST) -> list[str]:
    """Identifiers, imported modules and strings; what documents a module, a class, a function or a field is left out."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    documentation = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    words: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word) | ast.arg(arg=word):
                words.append(word)
            case ast.keyword(arg=str(word)) | ast.ImportFrom(module=str(word)):
                words.append(word)
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
                words.append(word)
            case ast.Constant(value=str(word)) if id(node) not in documentation:
                words.append(word)
    return words


def names_a_paper(source: str) -> list[str]:
    return [word for word in said(ast.parse(source)) if PAPERS.search(word.replace("_", " "))]


def test_no_paper_is_named_outside_the_methods() -> None:
    found = {
        str(path.relative_to(SOURCE)): words
        for path in SOURCE.rglob("*.py")
        if "methods" not in path.relative_to(SOURCE).parts and (words := names_a_paper(path.read_text()))
    }
    assert not found


def test_the_check_sees_identifiers_strings_and_imports_but_no_documentation() -> None:
    assert names_a_paper("def f(is_jima): return 1") == ["is_jima"]
    assert names_a_paper("x.ithn = 'kif'") == ["ithn", "kif"]
    assert names_a_paper("from rayscribe.methods.kif_isd import y") == ["rayscribe.methods.kif_isd"]
    assert names_a_paper("f(promptmrg=1)") == ["promptmrg"]
    assert names_a_paper('"""JIMA."""\nclass C:\n    "As ITHN does."\n    field: int = 0\n    "of KIF"') == []
