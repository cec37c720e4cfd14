"""Print the table of examples/omniglot.sh from the newest results: python -m examples.table RUNS NAME."""

import json
import sys
from pathlib import Path

ROWS = {
    "nearest centroid, pixels": "centroid_pixels",
    "nearest centroid, last layer": "centroid_final",
    "nearest centroid, third block": "centroid_block3",
    "LEO, third block": "leo_block3",
}

if __name__ == "__main__":
    runs, name = Path(sys.argv[1]), sys.argv[2]
    print("| 1-shot accuracy, % | 5-way | 20-way |\n|---|---|---|")
    for title, run in ROWS.items():
        cells = []
        for way in (5, 20):
            newest = sorted((runs / f"{name}_{run}_{way}way").glob("*/results.json"))[-1]
            final = json.loads(newest.read_text())["stages"]["final"]
            cells.append(f"{100 * final['accuracy']:.2f} ± {100 * final['ci95']:.2f}")
        print(f"| {title} | {' | '.join(cells)} |")
