"""Names of other people in figures, where a dollar would start mathematics."""

from __future__ import annotations

from vis2img.errors import printable

LONGEST = 60  # letters of a name


def figure_text(name: object, longest: int = LONGEST) -> str:
    """Return a name of a user's (field, file, class, column) such that matplotlib draws its letters as they are.

    In one line and shortened, as a title of 60,000 letters takes minutes; control characters as their escapes; and with
    a blank in front of ``_``, which hides a label from legends.
    """
    text = " ".join(printable(str(name)).split())
    text = text if len(text) <= longest else f"{text[: longest - 3]}..."
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
