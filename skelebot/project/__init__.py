"""What the project's files say, and how a job and its values become a Task."""
