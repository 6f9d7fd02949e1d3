"""What steps cost in operations and bytes: formulas, the table of all methods, and the paper's figures beside ours."""
