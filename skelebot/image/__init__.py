"""What is built: the text of a Dockerfile, the dependencies, the files."""
