"""The command line: read the words, call the library, print."""
