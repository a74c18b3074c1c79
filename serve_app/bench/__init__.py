"""Load and side-by-side comparison: what tierwise adds to a request, next to what a user would pick instead."""
