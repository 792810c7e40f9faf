"""Writes the iris data that comes with scikit-learn to data/iris.csv."""

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
    print(f"{len(rows)} flowers in {PATH}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, help="how many flowers of each species; all without it")
    return parser.parse_args()


def flowers() -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row of text for each flower: four lengths in cm, the species."""
    iris = load_iris()
    header = [name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names]
    rows = [
        [*(f"{length:g}" for length in lengths), str(iris.target_names[kind])]
        for lengths, kind in zip(iris.data, iris.target, strict=True)
    ]
    return [*header, "species"], rows


def first_of_each(rows: list[list[str]], count: int) -> list[list[str]]:
    """The first `count` rows of each species, or as many as there are."""
    seen: dict[str, int] = {}
    chosen = []
    for row in rows:
        seen[row[-1]] = seen.get(row[-1], 0) + 1
        if seen[row[-1]] <= count:
            chosen.append(row)
    return chosen


if __name__ == "__main__":
    main()
