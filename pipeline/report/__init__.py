"""Holds trainings side by side: medians and their bands over seeds, scores with intervals, as figures, tables and one page."""
