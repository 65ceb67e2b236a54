"""What the benchmarks of decoding decode: files of every format, and JPEGs by kind."""
