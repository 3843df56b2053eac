"""What came out: tables, statistics, pictures, text."""
