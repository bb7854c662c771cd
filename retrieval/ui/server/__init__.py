"""Serving the page: the app as ASGI, our middlewares around it, and the process that listens."""
