"""What `/stats` tells while somebody listens: totals of the metrics, figures of the last seconds, one line for all."""
