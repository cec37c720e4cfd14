"""Messages for users."""

from leo_lightning.common.errors import without_controls


def test_control_characters_are_not_shown():
    """Catches a name that colors the terminal, renames its window, adds a line, or cannot be encoded."""
    assert without_controls("a\x1b[31mred\x9b0m\r\n\u2028b\x7f\udcff") == "a?[31mred?0m???b??"
    assert (
        without_controls("été 日本\u3000نمی\u200cخواهم 👩\u200d🔬")
        == "été 日本\u3000نمی\u200cخواهم 👩\u200d🔬"
    )
