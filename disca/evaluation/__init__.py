"""What a speed-up costs and what it is worth: operations counted, videos compared, methods side by side."""
