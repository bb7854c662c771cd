"""The starter artifact: `python -m training.starter` draws its images, trains its encoder and builds it."""
