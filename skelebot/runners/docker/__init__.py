"""Runs tasks in containers."""
