"""The network as training sees it: built, with gradients, in little memory, exported."""
