"""Pruning: saliencies, masks, channel groups, compaction and dynamic sparse training."""
