"""HAM10000 as constants, for what is about this data set and no other.

The demo draws it, the paper's cells and the authors' networks are of it. What a run is trained on
follows from conf/data/ and not from here.

HAM10000: Tschandl, Rosendahl, Kittler 2018, doi:10.7910/DVN/DBW86T.
"""

FULL_NAMES = {
    "akiec": "actinic keratosis / Bowen",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
CLASSES = tuple(FULL_NAMES)
PROPERTIES = (1, 4, 16)
"""Encoded features of age, sex and localization."""


def full_name(label: str) -> str:
    """Return a class as a person reads it: one of these seven in full, any other as it is."""
    return f"{FULL_NAMES[label]} ({label})" if label in FULL_NAMES else label
