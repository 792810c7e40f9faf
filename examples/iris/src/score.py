"""Write data/iris.csv with a prediction for each flower to output/scored.csv, and print the accuracy."""

import csv

import joblib

DATA = "data/iris.csv"
MODEL = "models/model.joblib"
SCORED = "output/scored.csv"


def main() -> None:
    saved = joblib.load(MODEL)
    with open(DATA, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lengths = [[float(row[name]) for name in saved["features"]] for row in rows]
    held_out = set(saved["held_out"])
    scored = [
        {**row, "predicted": predicted, "held_out": i in held_out}
        for i, (row, predicted) in enumerate(zip(rows, saved["model"].predict(lengths), strict=True))
    ]
    with open(SCORED, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(scored[0]))
        writer.writeheader()
        writer.writerows(scored)
    print(f"wrote {len(scored)} flowers to {SCORED}")
    print(f"accuracy on {len(held_out)} held-out flowers: {accuracy(scored):.3f}")


def accuracy(scored: list[dict]) -> float:
    """Return the share of correct predictions among the held-out flowers."""
    answers = [row["predicted"] == row["species"] for row in scored if row["held_out"]]
    return sum(answers) / len(answers)


if __name__ == "__main__":
    main()
