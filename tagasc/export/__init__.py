"""Write a bundle, which ``tagasc.bundle`` runs: ONNX graphs from trained weights, parity, calibration, card.

The graphs are written node by node. torch's own exporters cannot do it: the older one is deprecated, the newer one
does not convert the network, and needs half a minute to say so. So that this second description of the forward passes
cannot drift from the first, every export compares both on real clips and fails where an answer differs.
"""
