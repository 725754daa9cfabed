"""Checks the annotations of public functions, shapes included, whenever one is called.

    python -m pytest -p tests.helpers.shape_checks

Every function and method of the package whose name does not begin with an underscore is
decorated with `jaxtyping.jaxtyped`, as it is imported: `Float[Array, "batch time"]` is
then what the argument must be, and `batch` the same number throughout the call.
Dataclasses are left alone: JAX puts tracers, shardings and other objects into the
leaves of a pytree, which an annotation cannot foresee.
"""

import ast
import importlib.abc
import importlib.machinery
import sys

PACKAGE = "musilingo_jax"
# An int is a float (PEP 484), as type checkers have it.
DECORATOR = (
    "jaxtyping.jaxtyped(typechecker=beartype.beartype("
    "conf=beartype.BeartypeConf(is_pep484_tower=True)))"
)


def _is_public(name):
    return not name.startswith("_") or name == "__call__"


def _is_for_checkers(statement):
    return isinstance(statement, ast.If) and (
        ast.unparse(statement.test) == "TYPE_CHECKING"
    )


class _Decorate(ast.NodeTransformer):
    """Puts the decorator on public functions of modules and classes, innermost."""

    def visit_Module(self, node):
        for statement in node.body:
            self._decorate(statement)
        imports = ast.parse("import beartype, jaxtyping").body
        # After the docstring.
        node.body[1:1] = imports
        return ast.fix_missing_locations(node)

    def _decorate(self, statement):
        if _is_for_checkers(statement):
            # The checks need the classes of these annotations, too.
            statement.test = ast.Constant(True)
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                self._decorate(inner)
        elif isinstance(statement, ast.FunctionDef) and _is_public(statement.name):
            decorator = ast.parse(DECORATOR, mode="eval").body
            statement.decorator_list.append(decorator)


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize=-1):
        tree = _Decorate().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname):
        # Never from or to a .pyc file, which knows nothing of the decorators.
        return self.source_to_code(self.get_data(self.path), self.path)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        if isinstance(
            getattr(found, "loader", None), importlib.machinery.SourceFileLoader
        ):
            found.loader = _Loader(found.loader.name, found.loader.path)
        return found


assert not any(name.split(".")[0] == PACKAGE for name in sys.modules)
sys.meta_path.insert(0, _Finder())
