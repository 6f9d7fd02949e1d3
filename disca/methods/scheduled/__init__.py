"""Caches whose full steps are a list, known before the run: another list can take its place."""
