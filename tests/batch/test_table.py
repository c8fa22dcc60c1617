"""Tables: what spreadsheets write is read, and what cannot be meant is named with its row."""

import pytest
from comfyui_musicgen.musicgen.batch.table import check_columns, read_table
from comfyui_musicgen.musicgen.errors import InputError

EXPECTED = [(2, {"prompt": "느린 판소리", "duration": "8"}), (3, {"prompt": 'a "rough" voice,\nlow'})]
CSV = 'prompt,duration\n느린 판소리,8\n"a ""rough"" voice,\nlow",\n'


def read(tmp_path, content, name="rows.csv", encoding=None):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns, rows = read_table(path, encoding)
    return columns, [(row.number, row.cells) for row in rows]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (CSV, None),
        (CSV.encode("utf-8-sig"), None),
        (CSV.replace("\n", "\r\n").encode("utf-8-sig"), None),
        (CSV.encode("utf-16"), None),
        (CSV.replace(",", "\t").replace("voice\t", "voice,").encode("utf-16"), None),  # Excel's "Unicode text"
        (CSV.replace(",", ";").replace("voice;", "voice,"), None),
        (CSV.encode("cp949"), "cp949"),
        (CSV + "\n\n,\n , \n", None),  # rows that a spreadsheet left
        (CSV.replace("duration", "duration,").replace(",8", ",8,"), None),  # and columns
        (CSV.replace("prompt,duration", " prompt , duration "), None),
    ],
)
def test_spreadsheets_agree(tmp_path, content, encoding):
    columns, rows = read(tmp_path, content, encoding=encoding)
    assert columns == ["prompt", "duration"]
    assert [
        (number, {key: text.replace("\r\n", "\n") for key, text in row.items()}) for number, row in rows
    ] == EXPECTED


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path):
    _, rows = read(tmp_path, 'prompt\n"two\nlines"\n\nlast\n')
    assert [number for number, _ in rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("prompt\na, b\n", "row 2: 2 cells, but 1 columns.*quotes"),
        ("prompt,\na,b\n", "row 2: the cell 'b' stands in a column without a name"),
        ('prompt\n"never closed\n', "is no CSV"),
        ("prompt\n느린\n".encode("cp949"), "line 2, is not in utf-8.*--encoding cp949"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, content)


def test_an_unknown_encoding_is_named(tmp_path):
    with pytest.raises(InputError, match="'--encoding klingon'"):
        read(tmp_path, CSV, encoding="klingon")


def test_json_lines_keep_their_types(tmp_path):
    content = '\ufeff{"prompt": "느린\\u2028판소리", "duration": 8, "seed": null}\n\n{"continuation": true}\n'
    columns, rows = read(tmp_path, content, "rows.jsonl")
    assert columns == ["prompt", "duration", "seed", "continuation"]
    assert rows == [(1, {"prompt": "느린\u2028판소리", "duration": 8}), (3, {"continuation": True})]


def test_all_wrong_json_lines_are_named_at_once(tmp_path):
    lines = ['{"a": 1, "a": 2}', "[1]", '{"a": NaN}', "{", '{"a": 1}']
    with pytest.raises(InputError) as error:
        read(tmp_path, "\n".join(lines), "rows.jsonl")
    for number, said in enumerate(["'a' stands there twice", "must be an object", "NaN is no number", "no JSON"], 1):
        assert f"row {number}: " in str(error.value) and said in str(error.value)
    assert "row 5" not in str(error.value)


def test_unknown_columns_are_named_with_the_nearest():
    with pytest.raises(InputError, match=r"no column 'Promt'\. Did you mean 'prompt'\? The columns are prompt, seed"):
        check_columns(["seed", "Promt"], ["prompt", "seed"])
    with pytest.raises(InputError, match="'seed' stands there 2 times"):
        check_columns(["seed", "seed"], ["prompt", "seed"])
