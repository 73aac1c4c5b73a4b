"""Pictures: of curves, of evaluations, of an episode."""
