"""What params.yaml says, besides `pipeline/segments.py`: changed values, what stays, what it will all take."""
