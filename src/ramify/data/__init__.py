"""Where pictures come from: sources, one seeded split, batched augmentation on the device."""
