"""Runs that are queued and recorded: what they are made of, where they are kept, who works them off."""
