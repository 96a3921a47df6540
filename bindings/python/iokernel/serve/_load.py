"""The application that a command line names, and whether it is WSGI or ASGI."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from typing import Any

DEFAULT_NAMES = ("app", "application", "create_app")


class NoApplication(Exception):
    """The application cannot be had; the text says why."""


def load(target: str, folder: str = ".", factory: bool = False) -> Any:
    """The application of `module:name`, `module:package.name`, `module:create("argument")`, or of a module whose
    application is called `app` or `application`. `factory`: what is found is called without arguments."""
    module_name, _, path = target.partition(":")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # What the module itself misses is its own error, and is shown with its traceback.
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise NoApplication(f"{target!r}: there is no module {error.name!r} in {folder!r} or along sys.path") from None
    found = _find(module, path, target) if path else _default(module, target)
    app = found() if factory else found
    if not callable(app):
        raise NoApplication(f"{target!r}: {type(app).__name__}: expected a callable, WSGI or ASGI")
    return app


def _default(module: Any, target: str) -> Any:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            found = getattr(module, name)
            return found() if name == "create_app" else found
    raise NoApplication(f"{target!r}: the module has no {' or '.join(DEFAULT_NAMES)}: name it, as in {target}:name")


def _find(module: Any, path: str, target: str) -> Any:
    try:
        tree: Any = ast.parse(path, mode="eval").body
        arguments: list[Any] = []
        named: dict[str, Any] = {}
        call = tree if isinstance(tree, ast.Call) else None
        if call is not None:
            tree = call.func
            arguments = [ast.literal_eval(one) for one in call.args]
            named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        names = _names(tree)
    except (SyntaxError, ValueError):
        raise NoApplication(f"{target!r}: expected module:name, or module:name(...) with literal arguments") from None
    found = module
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            raise NoApplication(f"{target!r}: {module.__name__!r} has no {'.'.join(names)!r}") from None
    return found if call is None else found(*arguments, **named)


def _names(tree: Any) -> list[str]:
    if isinstance(tree, ast.Name):
        return [tree.id]
    if isinstance(tree, ast.Attribute):
        return [*_names(tree.value), tree.attr]
    raise ValueError


def is_asgi(app: Any) -> bool:
    """Whether an application is ASGI: a coroutine function, an object that is called as one, or a callable of scope,
    receive and send. Anything else is WSGI."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.iscoroutinefunction(app):
        return True
    call = app.__init__ if inspect.isclass(app) else getattr(app, "__call__", None)  # noqa: B004
    if not inspect.isclass(app) and inspect.iscoroutinefunction(call):
        return True
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [one for one in parameters if one.default is one.empty and one.kind in (0, 1)]
    return len(needed) == 3
