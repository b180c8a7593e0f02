"""What are p and q? Densities, networks, flows, and the model that they make."""
