"""The committed stub of `skytorch._wire` says what the built module has: names, signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from skytorch import _wire

STUB = ast.parse((Path(_wire.__file__).parent / "_wire.pyi").read_text())

Definition = ast.ClassDef | ast.FunctionDef


def definitions(body: list[ast.stmt]) -> dict[str, Definition]:
    return {node.name: node for node in body if isinstance(node, Definition)}


def members(cls: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {name: node for name, node in definitions(cls.body).items() if isinstance(node, ast.FunctionDef)}


def is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)


def stub_signature(node: ast.FunctionDef) -> list[tuple[str, str, str]]:
    """(name, kind, default) of each parameter but self and cls."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    rows = [(a.arg, "plain", d) for a, d in zip(plain, defaults, strict=True)]
    rows += [(a.arg, "keyword", d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [
        (name, kind, "" if default is None else repr(ast.literal_eval(default)))
        for name, kind, default in rows
        if name not in ("self", "cls")
    ]


def built_signature(built: Callable[..., object]) -> list[tuple[str, str, str]]:
    return [
        (
            p.name,
            "keyword" if p.kind is inspect.Parameter.KEYWORD_ONLY else "plain",
            "" if p.default is inspect.Parameter.empty else repr(p.default),
        )
        for p in inspect.signature(built).parameters.values()
        if p.name not in ("self", "cls")
    ]


FUNCTIONS = {n: node for n, node in definitions(STUB.body).items() if isinstance(node, ast.FunctionDef)}
CLASSES = {n: node for n, node in definitions(STUB.body).items() if isinstance(node, ast.ClassDef)}
METHODS = [(c, m) for c, node in CLASSES.items() for m in members(node) if not is_property(members(node)[m])]


def test_the_same_names() -> None:
    public = {name for name in dir(_wire) if not name.startswith("_")}
    assert public == FUNCTIONS.keys() | CLASSES.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    assert built_signature(getattr(_wire, name)) == stub_signature(FUNCTIONS[name])
    assert inspect.getdoc(getattr(_wire, name)), f"{name} has no docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_class_has_the_same_members(name: str) -> None:
    built = getattr(_wire, name)
    inherited = set(dir(object)) - {"__new__"}
    present = {m for m in vars(built) if m not in inherited and m not in ("__doc__", "__module__")}
    constructs = "__new__" in members(CLASSES[name])
    assert present - {"__new__"} == members(CLASSES[name]).keys() - {"__new__"}
    assert inspect.getdoc(built), f"{name} has no docstring"
    assert built.__module__ == "skytorch._wire"
    if not constructs:
        with pytest.raises(TypeError, match=name):
            built()


@pytest.mark.parametrize(("cls", "method"), METHODS)
def test_method(cls: str, method: str) -> None:
    built = getattr(_wire, cls) if method == "__new__" else getattr(getattr(_wire, cls), method)
    assert built_signature(built) == stub_signature(members(CLASSES[cls])[method])


@pytest.mark.parametrize("name", CLASSES)
def test_properties_are_properties(name: str) -> None:
    built = getattr(_wire, name)
    marked = {m for m, node in members(CLASSES[name]).items() if is_property(node)}
    assert {m for m, value in vars(built).items() if inspect.isgetsetdescriptor(value)} == marked
