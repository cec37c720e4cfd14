"""CSV files that a spreadsheet opens: names in them stay text."""


def csv_cell(value: object) -> object:
    """Put a ' before text that a spreadsheet would take for a formula; numbers stay as they are."""
    if not isinstance(value, str) or len(value) < 2 or value[0] not in "=+-@":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
