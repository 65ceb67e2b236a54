"""The image, Prometheus and Grafana, and the scripts that check them."""
