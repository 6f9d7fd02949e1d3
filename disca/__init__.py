"""DisCa: Restricted MeanFlow and learned feature caching for HunyuanVideo (CVPR 2026)."""
