"""The user's own files: a video, and supports to look for."""
