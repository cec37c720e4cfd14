"""The figure."""

import re
from itertools import pairwise
from pathlib import Path

from leo_lightning.commands.compare.plan import Method, Plan
from leo_lightning.commands.compare.plot import Point, curve_of, write
from leo_lightning.common.figure_style import line_styles
from tests.tiny_run import rows


def arranged(out: Path) -> tuple[Plan, list[Point]]:
    methods = tuple(Method(name, (Path(f"{name}.yaml"),), {}) for name in ("a", "b"))
    plan = Plan(methods, "a", out, shots=(1, 5), ways=(2, 5))
    points = [Point(m.label, n, k, 0.1 * n + 0.01 * k, 0.01) for m in methods for n, k in plan.points]
    points[-1] = Point("b", 2, 1, note="made for 5 classes")
    return plan, points


def test_files(tmp_path: Path):
    """Catches a point or line too few or too many, and bytes that change."""
    plan, points = arranged(tmp_path)
    files = write(points, plan)
    assert [path.name for path in files] == ["plot.csv", "plot.png", "plot.svg"]
    svg = (tmp_path / "plot.svg").read_text()
    assert sorted(re.findall(r'id="((?:shots|ways)-\w+)"', svg)) == ["shots-a", "shots-b", "ways-a", "ways-b"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in files}
    write(points, plan)
    assert before == {path: path.read_bytes() for path in files}
    assert str(tmp_path) not in svg
    table = rows(files[0])
    assert [(row["way"], row["shot"]) for row in table[:3]] == [("5", "1"), ("5", "5"), ("2", "1")]
    assert (table[-1]["accuracy"], table[-1]["note"]) == ("", "made for 5 classes")


def test_curves():
    """Catches points of the other panel, points in disorder, and a missing point that ends the figure."""
    plan, points = arranged(Path("out"))
    rounded = [(x, round(accuracy, 6)) for x, accuracy, _ in curve_of(points[::-1], "a", "shots", plan)]
    assert rounded == [(1, 51.0), (5, 55.0)]
    assert [x for x, *_ in curve_of(points, "a", "ways", plan)] == [2, 5]
    assert [x for x, *_ in curve_of(points, "b", "ways", plan)] == [5]


def test_twenty_lines_are_told_apart():
    """Catches two lines that look alike, the reference's look on another line, and a group of two colours."""
    styles = line_styles(["leo", "leo", "leo", *(f"m{i}" for i in range(17))], reference=0)
    looks = [(style["color"], str(style["linestyle"])) for style in styles]
    assert len(set(looks)) == 20
    assert all(a["marker"] != b["marker"] for a, b in pairwise(styles))
    assert [style["color"] for style in styles].count("#000000") == 1
    assert styles[1]["color"] == styles[2]["color"]
