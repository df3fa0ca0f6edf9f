"""What is on disk: one index per data set, one rule per file format."""
