"""Write the iris data set of scikit-learn to data/iris.csv."""

import argparse
import csv

from sklearn.datasets import load_iris

PATH = "data/iris.csv"


def main() -> None:
    args = parse_args()
    header, rows = flowers()
    if args.rows:
        rows = first_of_each(rows, args.rows)
    with open(PATH, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    print(f"wrote {len(rows)} flowers to {PATH}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, help="the number of flowers of each species (default: all)")
    return parser.parse_args()


def flowers() -> tuple[list[str], list[list[str]]]:
    """Return the column names, and a row of text for each flower: four lengths in cm and the species."""
    iris = load_iris()
    header = [name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names]
    rows = [
        [*(f"{length:g}" for length in lengths), str(iris.target_names[kind])]
        for lengths, kind in zip(iris.data, iris.target, strict=True)
    ]
    return [*header, "species"], rows


def first_of_each(rows: list[list[str]], count: int) -> list[list[str]]:
    """Return the first `count` rows of each species, or all if there are fewer."""
    seen: dict[str, int] = {}
    chosen = []
    for row in rows:
        seen[row[-1]] = seen.get(row[-1], 0) + 1
        if seen[row[-1]] <= count:
            chosen.append(row)
    return chosen


if __name__ == "__main__":
    main()
