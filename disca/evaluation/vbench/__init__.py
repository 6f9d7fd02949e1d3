"""VBench: videos under the names by which it finds them, and its result files made into scores."""
