"""Plugins: found without importing one, and used without being broken by it."""
