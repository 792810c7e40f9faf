"""Where tasks run: a runner for each kind of place."""

from skelebot.model import Flags, Place
from skelebot.runners.runner import Runner


def at(place: Place, flags: Flags) -> Runner:
    """The runner for a place."""
    if place.is_native:
        from skelebot.runners.native import Native

        return Native(flags.verbose)
    if place.is_cluster:
        from skelebot.runners.kubernetes import Kubernetes

        return Kubernetes(place, flags)
    from skelebot.runners.docker import Docker

    return Docker(place.host, flags.verbose, flags.skip_build)
