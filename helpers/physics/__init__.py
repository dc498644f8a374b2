"""Jets and tracks: samples of the course, tensors for its models, and what physicists ask of the answers."""
