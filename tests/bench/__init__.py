"""The benchmarks: what their load and their reports mean."""
