"""The formats of checkpoints, one file each: from its files to one configuration and one naming of the weights."""
