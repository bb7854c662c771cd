"""How many connections the server keeps, how long it waits for each, and what it takes for a request."""
