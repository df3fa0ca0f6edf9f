"""From margins to J, F, VC and the paper's tables."""
