"""Plugins: components from others, found without importing them and isolated from the rest."""
