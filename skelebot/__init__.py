"""Skelebot: one command-line interface for every machine-learning project."""

__version__ = "3.0.0"
