"""The starter artifact: drawn, trained and built by `python -m training.starter`."""
