"""What the parts of Skelebot compute, checked by value."""
