"""Where things lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
SHARED = ROOT.parent / "shared"
"""Data that may not be copied into the project; tests that need it skip where it is absent."""
