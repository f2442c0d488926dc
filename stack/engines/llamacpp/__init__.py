"""llama.cpp, from the `xllamacpp` wheel."""
