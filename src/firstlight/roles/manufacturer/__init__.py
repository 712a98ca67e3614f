"""The manufacturer: makes devices, anchors batches, publishes reference values; sells as an owner does."""
