"""Whether servers of Kubernetes from 1.25 on know each field of a manifest, by their own schemas."""

from typing import Any

import kubernetes_validate

VERSIONS = tuple(f"1.{minor}" for minor in range(25, 38))


def problems(manifest: dict[str, Any]) -> list[str]:
    """What the versions refuse, and where."""
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message}")
    return found
