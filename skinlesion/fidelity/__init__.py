"""Is a backbone of ours, number for number, the Keras model that the authors cut?

Two environments that never meet: `keras_side` runs where Keras is (`make keras-parity` installs it
into `.venv-keras`), `parity` where torch is. Between them travel files and the plain NumPy of
`cases` and `keras_weights`. Nothing is imported here, so that either side may import the package.
"""
