"""Scene networks (paper, sections 2.1 and 3): architecture, systems, data, training, codes."""
