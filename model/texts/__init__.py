"""From a text to the int32 ids that a text tower takes, without torch or transformers. Imports `errors`."""
