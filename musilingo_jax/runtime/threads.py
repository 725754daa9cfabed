"""The number of threads that read files at the same time."""

# A disk or a network store is not faster with more, and each holds some megabytes.
MOST_THREADS = 16
