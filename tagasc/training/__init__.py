"""The training loop, weights, augmentation."""
