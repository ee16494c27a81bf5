"""The published layout (that of the authors): config, tensor names, reader, and conversion in both directions."""
