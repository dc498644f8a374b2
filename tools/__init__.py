"""For authors; students never import anything from here."""
