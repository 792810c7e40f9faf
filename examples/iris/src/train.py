"""Train a model on data/iris.csv and save it in models/model.joblib."""

import argparse
import csv

import joblib
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DATA = "data/iris.csv"
MODEL = "models/model.joblib"
FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def main() -> None:
    args = parse_args()
    with open(DATA, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lengths = [[float(row[name]) for name in args.features] for row in rows]
    species = [row["species"] for row in rows]
    training, held_out = train_test_split(
        range(len(rows)), test_size=args.test_share, stratify=species, random_state=args.seed
    )
    model = make_model(args.model, args.scale, args.seed)
    model.fit([lengths[i] for i in training], [species[i] for i in training])
    joblib.dump({"model": model, "features": args.features, "held_out": held_out}, MODEL)
    print(f"trained {args.model} on {len(training)} flowers and saved it to {MODEL}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["logistic", "forest", "neighbours"], default="logistic")
    parser.add_argument("--test-share", type=float, default=0.3)
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=FEATURES)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_model(kind: str, scale: bool, seed: int):
    model = {
        "logistic": LogisticRegression(max_iter=1000),
        "forest": RandomForestClassifier(random_state=seed),
        "neighbours": KNeighborsClassifier(),
    }[kind]
    return make_pipeline(StandardScaler(), model) if scale else model


if __name__ == "__main__":
    main()
