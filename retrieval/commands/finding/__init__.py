"""What the commands that find images do: search many pictures, find and remove near-duplicates."""
