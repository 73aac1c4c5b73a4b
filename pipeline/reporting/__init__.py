"""What MLflow is told of a run, besides `pipeline/tracking.py`: what is owed, how it is sent, what is set right later."""
