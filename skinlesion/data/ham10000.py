"""HAM10000 as constants, for what is about this data set and no other.

The demo draws it, the paper's cells and the authors' networks are of it. What a run is trained on
follows from conf/data/ and not from here.

HAM10000: Tschandl, Rosendahl, Kittler 2018, doi:10.7910/DVN/DBW86T.
"""

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PROPERTIES = (1, 4, 16)
"""Encoded features of age, sex and localization."""
