"""The paper's trainings, and what they are made of."""
