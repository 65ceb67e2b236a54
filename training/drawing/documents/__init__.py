"""Documents: pages, receipts, tables and charts."""
