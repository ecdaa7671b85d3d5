"""A backbone from unlabelled crops, where no pretrained weights can be had (docs/pretraining.md)."""
