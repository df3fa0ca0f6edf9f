"""What every method needs around itself: config, checkpoints, metrics, tables, logs, pictures, the evaluation loop.

Nothing here knows models/ or dataloaders/; a test asserts it.
"""
