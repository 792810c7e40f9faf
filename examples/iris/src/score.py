"""Writes data/iris.csv with a prediction for each flower to output/scored.csv; prints the accuracy."""

import csv

import joblib

DATA = "data/iris.csv"
MODEL = "models/model.joblib"
SCORED = "output/scored.csv"


def main() -> None:
    kept = joblib.load(MODEL)
    with open(DATA, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lengths = [[float(row[name]) for name in kept["features"]] for row in rows]
    held_out = set(kept["held_out"])
    scored = [
        {**row, "predicted": predicted, "held_out": i in held_out}
        for i, (row, predicted) in enumerate(zip(rows, kept["model"].predict(lengths), strict=True))
    ]
    with open(SCORED, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(scored[0]))
        writer.writeheader()
        writer.writerows(scored)
    print(f"{len(scored)} flowers in {SCORED}")
    print(f"accuracy on the {len(held_out)} held out: {accuracy(scored):.3f}")


def accuracy(scored: list[dict]) -> float:
    """The share of right answers among the flowers that the model had not seen."""
    answers = [row["predicted"] == row["species"] for row in scored if row["held_out"]]
    return sum(answers) / len(answers)


if __name__ == "__main__":
    main()
