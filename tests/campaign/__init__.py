"""A campaign of damaged inputs, kills and faults of the machine: see `run.py`."""
