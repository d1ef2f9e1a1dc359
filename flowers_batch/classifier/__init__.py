"""Labels, near-duplicates, the split, fitting, evaluation, training, suggestions, the model folder."""
