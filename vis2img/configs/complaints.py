"""What tyro finds wrong with a command line, in one line and in our words."""

from __future__ import annotations

import re

_PLAIN = (
    (r"^Error parsing (--\S+): ", r"\1: "),
    (r"^Error parsing \S+: ", ""),  # the name of a group of options says nothing
    (r"^Missing from [^:]*: (\S+).*", r"\1 is missing"),
    (r"^Missing value for argument '(\S+)'\. Expected ([2-9]) values.*", r"\1 takes \2 values"),
    (r"^Missing value for argument '(\S+)'.*", r"\1: a value is missing behind it"),
    (r"invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?),?\)", r"\2: \1 is unknown; choose from \3"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r" Expected 1 values\.$", ""),
)  # fmt: skip
_TUPLE = re.compile(r"Could not (?:parse arguments|find valid parse for arguments:) \[(.*?)\].*")
_UNKNOWN = re.compile(r"^Unrecognized options: (.*)")


def one_line(box: str) -> str:
    """Return what matters of tyro's error box."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    sections: list[list[str]] = [[]]
    for line in (line.strip("│ ").strip() for line in text.splitlines()):
        if line.startswith(("╭", "╰")) or not line:
            continue
        if set(line) == {"─"}:
            sections.append([])
        else:
            sections[-1].append(line)

    message = " ".join(sections[0])
    for pattern, ours in _PLAIN:
        message = re.sub(pattern, ours, message)
    known, choose, choices = message.partition("choose from")
    message = f"{known}{choose}{choices.replace(chr(39), '')}"
    rest = " ".join(sum(sections[1:], []))
    wanted = re.search(rf"{re.escape(message.partition(':')[0])} \[*([A-Z]+(?: [A-Z]+)*)\b", rest)
    message = _TUPLE.sub(
        lambda found: f"{wanted[1] if wanted else 'other values'} is wanted, not {_spoken(found[1])!r}", message
    )
    message = _UNKNOWN.sub(lambda found: _unknown(found[1].split(", ")), message)
    suggestion = re.search(r"Perhaps you meant:.*?(--[\w-]+)", rest)
    guess = f"; perhaps you meant {suggestion[1]}" if suggestion else ""
    return f"{message.rstrip('.') or 'the command line cannot be understood'}{guess}"


def _spoken(words: str) -> str:
    """Return a list of quoted words as they were written."""
    return " ".join(re.findall(r"'([^']*)'", words)) or words


def _unknown(words: list[str]) -> str:
    """Return what to say of words that belong to no option: the first, of which the others are values, perhaps."""
    option = next((word for word in words if word.startswith("-")), None)
    return f"unknown option {option}" if option else f"{' '.join(words)!r} belongs to no option"
