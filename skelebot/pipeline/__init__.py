"""What jobs read and make, and whether there is anything left to do."""
