"""Reads YAML files that people write, so that each mistake is told with its file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labkit.errors import FileError

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


class Reader:
    """Reads YAML nodes rather than values, because only a YAML node knows its line."""

    def __init__(
        self, file: Path, error: type[FileError], variables: Mapping[str, str] | None = None
    ) -> None:
        self._file, self._error, self._variables = str(file), error, variables or {}

    def root(self) -> yaml.Node:
        """Return the root of the file; raises the reader's error where it is empty or no YAML."""
        try:
            root = yaml.compose(Path(self._file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as problem:
            raise self._error(self._file, 1, "", f"cannot be read: {problem.strerror}") from problem
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            line = mark.line + 1 if mark else 1
            raise self._error(self._file, line, "", f"is not YAML: {problem.problem}") from problem
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            reason = str(problem).splitlines()[0]
            raise self._error(self._file, 1, "", f"is not YAML: {reason}") from problem
        if root is None:
            raise self._error(self._file, 1, "", "the file is empty")
        return root

    def wrong(self, node: yaml.Node, key: str, problem: str) -> FileError:
        """Return the error that names the file, the node's line and the key."""
        return self._error(self._file, node.start_mark.line + 1, key, problem)

    def required(
        self, table: dict[str, yaml.Node], key: str, parent: yaml.Node
    ) -> tuple[yaml.Node, str]:
        """Return the value of a key that has to be there, with the key; raises FileError."""
        if key not in table:
            raise self.wrong(parent, key, "is missing")
        return table[key], key

    def mapping(
        self,
        node: yaml.Node | None,
        path: str,
        *,
        known: set[str] | None = None,
        extensions: bool = False,
    ) -> dict[str, yaml.Node]:
        """Return key -> YAML node with merge keys (`<<`) resolved; raises FileError.

        `known` are the keys that may be there; any may where it is None. `extensions` allows `x-…`.
        """
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1 if node else 1
            raise self._error(self._file, line, path, "must be a mapping of keys to values")
        table: dict[str, yaml.Node] = {}
        own: set[str] = set()
        for key_node, item in node.value:
            key = str(key_node.value)
            if key_node.tag == "tag:yaml.org,2002:merge":
                table = {**self.mapping(item, path), **table}
                continue
            if key in own:
                where = f"{path}.{key}" if path else key
                raise self.wrong(key_node, where, "is there twice")
            own.add(key)
            if known is not None and key not in known and not (extensions and key[:2] == "x-"):
                where = f"{path}.{key}" if path else key
                names = ", ".join(sorted(known))
                raise self.wrong(key_node, where, f"is not known here; known: {names}")
            table[key] = item
        return table

    def checked(
        self, node: yaml.Node, path: str, keys: Mapping[str, tuple[type, bool]]
    ) -> dict[str, Any]:
        """Return the values of a mapping, each of its key's type; raises FileError."""
        table = self.mapping(node, path)
        row: dict[str, Any] = {}
        for key, item in table.items():
            if key not in keys:
                known = ", ".join(sorted(keys))
                raise self.wrong(item, f"{path}.{key}", f"is not known here; known: {known}")
            expected, _ = keys[key]
            found = self.value(item, f"{path}.{key}")
            if not isinstance(found, expected):
                kind = {dict: "a mapping", list: "a list", bool: "true or false", str: "a text"}
                raise self.wrong(item, f"{path}.{key}", f"is {found!r}, expected {kind[expected]}")
            row[key] = found
        for key, (_, is_required) in keys.items():
            if is_required and key not in row:
                raise self.wrong(node, f"{path}.{key}", "is missing")
        return row

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the plain value, with ${VARIABLE:-default} replaced; raises FileError."""
        if isinstance(node, yaml.MappingNode):
            return {k: self.value(v, f"{path}.{k}") for k, v in self.mapping(node, path).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, path) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == "tag:yaml.org,2002:bool":
            return node.value.lower() in ("true", "yes", "on")

        def fill(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            found = self._variables.get(name, default)
            if found is None:
                raise self.wrong(node, path, f"${{{name}}} has no value and no default")
            return found

        return _VARIABLE.sub(fill, str(node.value))
