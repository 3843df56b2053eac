"""Acoustic scene classification using audio tagging, without paths of a recipe, corpora or stages.

From the ground up: ``utils``; ``audio`` (packed clips) and ``training`` (the loop); ``tagger`` (tag vectors) and
``backend`` (SVMs on codes); ``scene`` (scene networks and their codes); ``report`` (results) and ``benchmark`` (speed);
``export`` writes bundles, which ``bundle`` runs without torch.
"""
