"""The few-shot task: episodes of supports and query clips."""
