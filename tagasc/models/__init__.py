"""The networks: ``trunk`` and ``fusion`` make the ``scene`` network, ``tagger`` is the audio tagging network."""
