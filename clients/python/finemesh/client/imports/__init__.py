"""Runs that other trackers have written, on their way into the mesh."""
