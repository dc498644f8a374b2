"""For authors: notebooks from their sources, pages from notebooks, recorded results, the README's picture. No student needs them."""
