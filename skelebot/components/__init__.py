"""The built-in components, one file or folder each; none imports another."""
