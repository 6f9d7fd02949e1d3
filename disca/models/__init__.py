"""What a HunyuanVideo is: its families, their files, and the Predictor that stands in for its blocks."""
