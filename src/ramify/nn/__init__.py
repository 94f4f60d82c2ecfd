"""What a network is: masked layers, cells, exits, and the network of stages they make up."""
