"""Pictures that come in: where they are kept, how much of them and how long, and how they are read from requests."""
