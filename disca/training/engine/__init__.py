"""The loop, whatever is trained and however often it is interrupted."""
