"""The figure."""

import re
from pathlib import Path

from leo_lightning.commands.compare.plan import Method, Plan
from leo_lightning.commands.compare.plot import Point, _styles, curve_of, prominent, write
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
    files = write(points, plan, {"a"})
    assert [path.name for path in files] == ["plot.csv", "plot.png", "plot.svg"]
    svg = (tmp_path / "plot.svg").read_text()
    assert sorted(re.findall(r'id="((?:shots|ways)-\w+)"', svg)) == ["shots-a", "shots-b", "ways-a", "ways-b"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in files}
    write(points, plan, {"a"})
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


def test_lines_that_stand_out():
    """Catches a strongest method in grey, a variant of LEO that takes a place of the others, and ties."""
    methods = tuple(Method(name, (Path("x.yaml"),), {}) for name in "abcdefg")
    plan = Plan(methods, "a", Path("out"), shots=(1, 5))
    heights = {"a": 5, "b": 9, "c": 8, "d": 1, "e": 7, "f": 6, "g": 5.5}
    points = [Point(name, 5, shot, height / 10, 0.01) for name, height in heights.items() for shot in (1, 5)]
    assert prominent(points, plan, {"a", "d", "e"}) == ["a", "e", "b", "c", "f"]
    styles = _styles(points, plan, {"a", "d", "e"})
    looks = {(str(style["linestyle"]), style["marker"]) for style in styles.values()}
    assert len(looks) == 5  # also without colour
