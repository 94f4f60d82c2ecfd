"""Pictures: sources, seeded splits, batched augmentation on the device."""
