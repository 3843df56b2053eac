"""Run a bundle: from sound to scene, margin, probability and events, and to a page that says why.

    from tagasc.bundle import load

    classify = load("exp/bundle/beforecode_l3")
    answer = classify(samples, rate)  # (frames,) or (frames, channels), in -1..1, at any rate
    print(answer.scene, answer.probability, answer.margin, answer.events(3))

The package imports numpy, soundfile and onnxruntime only, and each bundle holds a copy of it. ``tagasc.export`` writes
bundles.
"""

from tagasc.bundle.runner import Answer, Bundle, Window, load

__all__ = ["Answer", "Bundle", "Window", "load"]
