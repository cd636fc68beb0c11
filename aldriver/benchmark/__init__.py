"""Benchmark room: property suite, evaluation on labelled frames, and the gate that promotes or holds."""
