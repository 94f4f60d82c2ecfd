"""Growing: new stages, wider cells, deeper networks, and converting exits."""
