"""Weight files: their layouts, reading and writing them, and what is wrong with one."""
