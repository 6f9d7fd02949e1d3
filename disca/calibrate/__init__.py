"""The command that measures a model for a cache that needs it."""
