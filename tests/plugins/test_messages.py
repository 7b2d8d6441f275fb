"""What a user can be told is in docs/troubleshooting.md."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = ("Refusal", "NoServerError", "ServerError")


def messages():
    """The constant words of every sentence that the plug-in raises: the first and the longest piece."""
    for path in sorted((ROOT / "plugins" / "gimp" / "pconv-inpaint").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS:
                pieces = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                pieces = [piece for piece in pieces if isinstance(piece, str) and len(words(piece)) >= 3]
                if pieces:
                    yield path.name, pieces


def words(text):
    return re.findall(r"[\w'’]+", text)


def test_each_has_its_line():
    text = " ".join(words((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")))
    found = list(messages())
    lost = [
        (name, pieces)
        for name, pieces in found
        if not any(
            " ".join(words(piece)[at : at + 3]) in text for piece in pieces for at in range(len(words(piece)) - 2)
        )
    ]
    assert lost == []
    assert len(found) > 20
