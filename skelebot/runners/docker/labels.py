"""The labels that mark images and containers as a project's and a checkout's."""

from skelebot.image.dockerfile import PROJECT_LABEL
from skelebot.model import Image
from skelebot.project.state import checkout_id

__all__ = ["PROJECT_LABEL"]

JOB_LABEL = "skelebot.job"
CHECKOUT_LABEL = "skelebot.checkout"
ROOT_LABEL = "skelebot.root"  # the folder of that checkout, for people
MAKER_LABEL = "skelebot.maker"  # the process that made a container, see process.identity
ATTEMPT_LABEL = "skelebot.attempt"  # of a recorded run's task: its token
GPUS_LABEL = "skelebot.gpus"  # the lasting names of the devices that a container has for itself

CONTEXT_LABEL = "skelebot.context"  # the fingerprint of what an image was built from
BASE_LABEL = "skelebot.base"
FILES_LABEL = "skelebot.files"

# Those of an image that leaves this machine: the commit, and whether the files differed from it.
REVISION_LABEL = "org.opencontainers.image.revision"
DIRTY_LABEL = "skelebot.dirty"

FILES_TAG = "files-"  # begins the tags of images that go when no other image is built upon them


def of_checkout(root: str) -> dict[str, str]:
    return {CHECKOUT_LABEL: checkout_id(root), ROOT_LABEL: root}


def repository(image: Image) -> str:
    """The image's name without its tag."""
    return image.tag.partition(":")[0]


def own_tag(image: Image) -> str:
    """The tag that no other checkout's builds move; the image's own is that of the last build of all."""
    return f"{image.tag}-{checkout_id(image.context)}"
