"""Scripts that run in an engine's own Python: they import nothing of aldriver, which need not be installed there."""
