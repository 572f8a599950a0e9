"""One reader of tables: whoever wrote it, a table is the same, or says why it is none."""

import logging
import random
import unicodedata

import numpy as np
import pytest

from skinlesion.data.table import read_cells
from skinlesion.errors import SkinlesionError

EXPECTED = [["p1", "Ärm, left", "1.5"], ["p2", "leg", None]]


def read(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_cells(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "list.csv"


PLAIN = 'file,place,size\np1,"Ärm, left",1.5\np2,leg,\n'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        f"\n{PLAIN}\n\n",
        PLAIN.replace("\n", ",\n"),  # every line ends in a comma
        PLAIN.replace("leg,", "leg,NA"),
        PLAIN.replace("leg,", "leg,  "),
        PLAIN.replace("leg,\n", "leg\n"),  # a row too short
        ' file , place,size \n p1 ,"Ärm, left" , 1.5\np2,leg, null \n'.replace('" ,', '",'),
        '"file";"place";"size"\n"p1";"Ärm, left";"1.5"\n"p2";"leg";""\n',
        "file\tplace\tsize\np1\tÄrm, left\t1.5\np2\tleg\t\n",
        ',file,place,size\n0,p1,"Ärm, left",1.5\n1,p2,leg,\n',  # pandas' index
        'Unnamed: 0,file,place,size\n0,p1,"Ärm, left",1.5\n1,p2,leg,\n',
        'Unnamed: 0.1,Unnamed: 0,file,place,size\n0,0,p1,"Ärm, left",1.5\n1,1,p2,leg,\n',
        PLAIN.encode("utf-8-sig"),
        b"\xef\xbb\xbf" + PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", "\t").replace("Ärm\t left", "Ärm, left").encode("utf-16"),
        PLAIN.encode("cp1252"),
        unicodedata.normalize("NFD", PLAIN),
    ],
    ids=repr,
)
def test_every_form_of_a_table_is_read_alike(path, text):
    cells = read(path, text)
    assert cells.columns.tolist() == ["file", "place", "size"]
    assert cells.astype(object).replace({np.nan: None}).to_numpy().tolist() == EXPECTED


def test_what_is_read_as_windows_1252_is_told(path, caplog):
    caplog.set_level(logging.WARNING)
    read(path, PLAIN)
    assert not caplog.records
    read(path, PLAIN.encode("cp1252"))
    assert f"{path} is no UTF-8 and is read as Windows-1252" in caplog.text


def test_rows_are_known_by_their_line_also_below_blank_lines_and_notes(path):
    cells = read(path, 'file,note,\n\np1,"it grew\nand itched, a little"\np2,\n')
    assert cells.index.tolist() == [3, 5]
    assert cells.loc[3, "note"] == "it grew\nand itched, a little"


HEAD = "file,place,size"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" \n,,\n", "it is empty"),
        (f"{HEAD}\np1,arm,1,more\n", "line 2: 4 cells under a header of 3"),
        (f'{HEAD}\n"p1,arm,1\np2,leg,2\n', "line 2: unexpected end of data"),
        # Two stray quotes, which lost every row between them without a word.
        (f'{HEAD}\np1,"arm,1\np2,leg,2\np3,leg",3\np4,arm,4\n', "line 2: a stray quote"),
        (f'{HEAD}\np1,"arm,1\np2,leg",2\n', "line 2: a stray quote"),
        (f'{HEAD}\np1,"arm,1\np2,leg,2"\np3,arm,3\n', "line 2: a stray quote"),
        (f'{HEAD}\np1,arm,"1\np2,"leg,2\np3,arm,3\n', "line 2: ',' expected after"),
        (f'{HEAD}\np1,"arm,\np2,leg,\np3",arm,\np4,arm,\n', "line 2: a stray quote"),
        (f'{HEAD}\np1,arm,"1\np2,leg,2\n"', "line 2: a stray quote"),
        ('file,"kind\np1,a\np2",b\np3,a\n', "line 1: a column's name goes on below"),
        ("file, file\np1,p1\n", "file more than once; expected names that differ"),
        ("file,FILE\np1,p1\n", "FILE more than once"),
        (b"file,place\np1,\0arm\n", "NUL"),
        (b"PK\x03\x04\x14\x00\x81\x8d", "can't decode byte 0x81"),
    ],
    ids=repr,
)
def test_what_would_lose_or_shift_rows_is_refused(path, text, why):
    with pytest.raises(SkinlesionError) as refusal:
        read(path, text)
    assert str(refusal.value).startswith(f"{path} cannot be read as a table: ")
    assert why in str(refusal.value)


@pytest.mark.parametrize("head", ["file", "file,place", f"{HEAD}", f"{HEAD},kind,age,sex,note"])
def test_stray_quotes_never_lose_a_row(path, head):
    draw, refused, columns = random.Random(0), 0, head.count(",")
    for _ in range(150):
        rows = [
            f"p{n}" + "".join(draw.choice([",", ",arm"]) for _ in range(columns)) for n in range(9)
        ]
        text = "\n".join([head, *rows, ""])
        for _ in range(draw.choice([1, 2, 2, 3, 4])):
            # A quote counts at the ends of a cell.
            end = draw.choice([n for n, mark in enumerate(text) if mark in ",\n"])
            at = end + draw.choice([0, 1])
            text = f'{text[:at]}"{text[at:]}'
        try:
            assert len(read(path, text)) == 9, text
        except SkinlesionError:
            refused += 1
    assert 50 < refused < 145


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(SkinlesionError, match=r"list\.csv cannot be read as a table: .*No such"):
        read_cells(path)
