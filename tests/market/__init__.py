"""A SIMULATED marketplace around the real pipeline: nothing here is evidence of how people behave."""
