"""The page that shows recorded runs in a browser; `serve` is imported by the command `ui` alone."""
