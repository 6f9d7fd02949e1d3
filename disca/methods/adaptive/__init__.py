"""Caches that decide in each step, by what they see of the run or by what was measured before."""
