"""Pre-training of backbones: `python -m leo_lightning pretrain`."""
