"""What the package exports, read from its stub without importing any of it."""

import ast
import pathlib


def _read(stub: pathlib.Path) -> dict[str, str]:
    return {
        alias.name: str(node.module)
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


# Name -> the module that it is imported from.
MODULES = _read(pathlib.Path(__file__).with_name("__init__.pyi"))
