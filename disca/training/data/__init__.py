"""From clips and captions to samples."""
