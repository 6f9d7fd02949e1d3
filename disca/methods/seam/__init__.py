"""What a feature cache is made of: when, where, what, and the settings a user sees."""
