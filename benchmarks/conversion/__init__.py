"""Formats converted into each other, in this process: time of chunks and requests, memory."""
