"""The errors that a user can cause and can mend, and the warnings: one line each, shown without a traceback."""


class Vis2imgError(Exception):
    """Something the user can put right; the message names the file, the column and the remedy."""


class UsageError(Vis2imgError):
    """A command line that cannot be understood."""

    exit_code = 2


class MeasurementSetError(Vis2imgError):
    """A measurement set that cannot be opened or read, or holds nothing that can be imaged."""


class ParameterError(Vis2imgError, ValueError):
    """A parameter outside its legal range, or at odds with the data."""


class NotEnoughMemoryError(ParameterError):
    """An image that does not fit into the memory that is free just now."""


class EmptyImageError(ParameterError):
    """An image that no visibility with weight is left for."""


class OutputError(Vis2imgError):
    """An output that exists already or cannot be written."""


class StoreError(MeasurementSetError, OutputError):
    """Averaged data that are not whole, or none of ours."""


class BusyError(OutputError):
    """An output that another process is writing."""


class Vis2imgWarning(UserWarning):
    """Something that a user should know of data or results that are used all the same: what, of which file, how much.

    Give it by ``warnings.warn(text, Vis2imgWarning, stacklevel=2)``; the command line shows ``vis2img: warning: text``.
    """


def printable(text: str) -> str:
    """Return ``text`` with control characters as their escapes, so that no name of a file or field steers a terminal.

    Line ends and tabs stay; half characters of names that are not UTF-8 are escaped, too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def reason_of(error: BaseException, name: str) -> str:
    """Return why ``name`` cannot be used: what an error of ours says, or the type and first line of another."""
    return str(error) if isinstance(error, Vis2imgError) else f"{name}: {type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error of a library, whose messages may run to pages; its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
