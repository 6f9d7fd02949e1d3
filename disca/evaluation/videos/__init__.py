"""What two videos differ in: measures frame by frame, and what a user sees of them."""
