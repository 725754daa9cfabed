"""A stage's update compiled for TPUs that are not there."""
