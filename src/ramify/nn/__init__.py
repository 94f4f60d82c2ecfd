"""Networks: masked layers, cells, exits, and stages."""
