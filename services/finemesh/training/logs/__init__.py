"""What the attempts at a job have written: kept in segments of bytes, read as lines."""
