"""What `benchmarks/learning.py` is made of: evidence that the method learns."""
