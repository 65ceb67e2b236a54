"""The page that the server shows at `/`: HTML, styles, scripts and sample pictures. No Python but this line."""
