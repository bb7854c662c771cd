"""Pictures and rows: how they come in, where they come from, what a gallery keeps of them."""
