"""What a training takes of memory, and what fits a card."""
