"""Teaching landmarks and training autoencoders: faces, augmentation, losses, recipes, the few-shot fit."""
