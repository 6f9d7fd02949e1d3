"""What a command prints: lines that begin with the pack's name, by which the server knows them."""

import logging

PREFIX = "[disca] "


def speak() -> None:
    """From now on what is logged goes to the console so."""
    logging.basicConfig(level=logging.INFO, format=f"{PREFIX}%(message)s")
