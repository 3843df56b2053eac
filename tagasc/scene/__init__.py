"""Scene networks (paper, sections 2.1 and 3): architecture, systems, data, training, codes.

``network.SceneNetwork.forward`` goes from stored samples to code and logits. ``training.py`` and ``step.py`` train it;
``tagasc.training.loop.fit`` saves the epoch that is best on validation. ``inference.py`` computes codes, which
``steps/extract_codes.py`` writes and ``tagasc.backend.svm`` classifies.
"""
