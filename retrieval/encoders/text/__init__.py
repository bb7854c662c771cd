"""Words and pictures in one space: CLIP and SigLIP models, run by `transformers` or, exported, without torch."""
