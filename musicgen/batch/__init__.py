"""Many clips from a table: its rows, the folder with its manifest, and the workers that make them."""
