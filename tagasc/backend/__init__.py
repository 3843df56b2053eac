"""What follows the networks: codes, the SVM, the paper's scoring after each epoch."""
