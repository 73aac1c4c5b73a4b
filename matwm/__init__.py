"""The Multi-Agent Transformer World Model: the method, without any MLOps tool."""
