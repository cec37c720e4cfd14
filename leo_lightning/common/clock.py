"""Durations, written as a clock shows them."""


def clock(seconds: float | int) -> str:
    """Format a duration as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
