"""YAML as people write it, and nothing that takes time or memory out of proportion to the file.

PyYAML takes the last of two equal keys, composes by recursion, and gives whatever an alias stands for as often as it
stands there, so that a few lines can mean billions of values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vis2img.errors import ParameterError

MOST_BYTES = 1 << 20
_DEEPEST = 20  # keys in keys, lists in lists
_MOST_VALUES = 100_000  # with those that aliases stand for
_LONGEST_PROBLEM = 200


class _Yaml(yaml.SafeLoader):
    """YAML without numbers to the base 60, in which channels 10:32 would be 632, and of bounded depth and size."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and count what it stands for."""
        event = self.peek_event()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong(f"more than {_DEEPEST} levels of keys and lists", event.start_mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1

        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _wrong(f"*{event.anchor} stands within itself", event.start_mark)
            return node
        within: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [part for item in within for part in (item if isinstance(item, tuple) else (item,))]
        self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        if self._sizes[id(node)] > _MOST_VALUES:
            raise _wrong(f"more than {_MOST_VALUES:,} values", event.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return a dictionary; a key that is there twice is refused, however it is written."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith("merge"):
                name = key.value.replace("-", "_")
                if name in seen:
                    raise _wrong(f"the key {key.value} is there twice", key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> Any:
        """Return a number, or the text of what has a colon."""
        if ":" in node.value:
            return node.value
        whole = node.tag.endswith("int")
        try:
            return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        except (ValueError, IndexError) as error:
            raise _wrong(f"{node.value[:40]!r} is no number", node.start_mark) from error


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Yaml.add_constructor(_tag, _Yaml.construct_number)


def _wrong(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def parse_yaml(text: bytes, path: Path | str) -> Any:
    """Return what a YAML file of this text means.

    Raises
    ------
    ParameterError
        If it is not valid, or holds far more than a configuration does; one line that names file and line.
    """
    try:
        return yaml.load(text, _Yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        problem = f"{place}{error.problem or error.context}"
    except Exception as error:  # values such as 2026-99-99 raise what Python's types do
        problem = str(error)
    problem = " ".join(problem.replace('in "<byte string>"', "").split())[:_LONGEST_PROBLEM]
    raise ParameterError(f"{path} is not valid YAML: {problem}")
