"""CSV files that a spreadsheet opens or a terminal shows: names in them stay text."""

from leo_lightning.common.errors import without_controls


def csv_cell(value: object) -> object:
    """Put a ' before text that a spreadsheet would take for a formula, and replace control characters.

    Numbers stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = without_controls(value)
    if len(text) < 2 or text[0] not in "=+-@":
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
