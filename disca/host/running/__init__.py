"""One sampling run: what is kept, what each row decides, and what becomes of the blocks in each call."""
