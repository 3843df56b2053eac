"""Acoustic scene classification using audio tagging: the science, without paths, corpora or stages.

From the ground up: ``errors``, ``files``, ``console``, ``provenance``, ``command`` (for every program);
``audio``, ``metrics``, ``features`` and ``tags`` (what is stored and measured); ``augment`` and ``models``;
``training``; ``tagger`` and ``scene`` (what is trained); ``backend`` and ``systems``; ``report`` and ``pictures``.
"""
