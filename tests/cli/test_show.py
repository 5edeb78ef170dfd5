"""What a terminal shows: cells are data, and shades have exact bounds."""

import pytest
import torch

from tokenspace.cli.show import print_heat_map, print_json, print_rows


def heat(capsys, cosines):
    print_heat_map(torch.tensor([cosines]), [7], "Cosine")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("cosine", "shade"),
    [(-1, "·"), (0, "·"), (1e-6, "░"), (0.25, "░"), (0.2501, "▒"), (0.5, "▒"), (0.75, "▓"), (0.7501, "█"), (1, "█")],
)
def test_a_shade_reaches_up_to_its_bound(capsys, cosine, shade):
    assert heat(capsys, [cosine])[1] == f"7 {shade * 2}"


def test_a_cosine_a_rounding_above_1_is_full(capsys):
    assert heat(capsys, [1.0000001])[1] == "7 ██"


def test_the_map_names_its_shades(capsys):
    assert heat(capsys, [0.0])[-1].strip() == "· 0 or less   ░ to 1/4   ▒ to 1/2   ▓ to 3/4   █ to 1"


def test_cells_are_never_markup(capsys):
    print_rows(["[bold]"], [["[red]x[/red]"], ["[/]"]], "[b]title")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()][:4] == [
        "[b]title",
        "[bold]",
        "[red]x[/red]",
        "[/]",
    ]


def test_json_is_one_line_of_readable_text(capsys):
    print_json({"word": "बिल्ली\n"})
    assert capsys.readouterr().out == '{"word": "बिल्ली\\n"}\n'
