"""Runs MATWM as a pipeline: the only package that knows MLflow and DVC."""
