"""Plugins: components that others wrote, found without an import and run without harm to the rest."""
