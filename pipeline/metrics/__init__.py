"""What a run measured: on disk while it trains, and in `metrics/<segment>/` afterwards."""
