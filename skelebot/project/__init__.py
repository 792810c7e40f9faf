"""What the project's files say; a job and its values become a Task."""
