import csv
import io

from evaluation.report.page_tables import short, summary, typical_tokens
from evaluation.report.tables import DataTable
from evaluation.report.who import Analysis


def test_csv_keeps_names_as_they_are_and_leaves_unknown_values_empty():
    names = ['a, "b"', "line\nbreak"]
    table = DataTable(
        ("run", "value", "count"), [(names[0], 1 / 3, 3_189_888), (names[1], float("nan"), None)]
    )
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["run", "value", "count"],
        [names[0], "0.3333333", "3189888"],
        [names[1], "", ""],
    ]
    assert table.kinds() == {"run": "string", "value": "number", "count": "number"}
    assert table.texts("run") == names


def test_numbers_are_shortened_to_four_digits():
    assert [short(value) for value in (None, 950, 1_419_000, 2.5e12)] == [
        "not recorded",
        "950",
        "1.419M",
        "2.500T",
    ]


def test_the_summary_says_what_was_not_recorded():
    fact = {"name": "run", "model": "nano", "arch": "moe", "seed": 1, "state": None, "tokens": 4096}
    fact |= {"parameters": 1000, "active_parameters": {"expected": 500, "measured": None}}
    fact |= {"train_flops_per_token": {"expected": None, "measured": None}, "bits_per_byte": None}
    fact |= {"tokens_per_second": None, "groups": [{"width": 8, "share": None}], "idle_experts": None}
    table = summary([fact | {"max_violation": None, "alarms": {"collapse": 2}}])
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["state"] == "unknown"
    assert row["active, expected"] == "500"
    assert row["idle experts"] == row["validation bits per byte"] == "not recorded"
    assert row["alarms"] == "2"


def test_typical_tokens_are_visible(tmp_path):
    expert = {"layer": 1, "expert": 2, "width": 8, "load": 1.5}
    expert |= {"typical": [{"token": " if\n", "rows": 9, "lift": 3.25}]}
    data = {"experts": [expert, expert | {"typical": []}]}
    table = typical_tokens(Analysis("run", tmp_path, data))
    assert table.rows[0] == ["layer 1 expert 2", "8", "1.50", "“␣if↵” 3.2x"]
    assert table.rows[1][3] == "none often enough"
