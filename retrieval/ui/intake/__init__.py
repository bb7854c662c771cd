"""What comes in over HTTP: sizes, JSON and arguments are checked here, before Gradio sees a request."""
