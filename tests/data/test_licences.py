"""Licence headers go, and nothing that is not one: not text about licences, not the rest of a comment, not code."""

from collections import Counter

import pytest

from minillm.data.clean import clean_text

APACHE = """Copyright 2031, 2032,
  2033 The Harbour Library

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.example.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License."""
GPL = """This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License as published by
its foundation, either version 3 of the License, or
(at your option) any later version.

You should have received a copy of the GNU General Public License
along with this program."""
BSD = """Copyright (c) 2031, The Harbour Library
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice.
2. Neither the name of the library nor those of its readers may be used to
   endorse anything.

THIS SOFTWARE IS PROVIDED "AS IS" AND ANY WARRANTIES ARE DISCLAIMED. IN NO EVENT
SHALL THE LIBRARY BE LIABLE."""
SHORT = ("SPDX-License-Identifier: MIT", "© 2031 The Harbour Library", "Copyright (C) 2031 A. Reader <a@example.org>")
CHINESE = "版权所有 2031 港口图书馆\n根据某某许可证发布。"


def behind(mark: str, text: str) -> str:
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in text.split("\n"))


def within(text: str) -> str:
    return "/*\n" + behind(" *", text) + " */\n"


@pytest.mark.parametrize("licence", [APACHE, GPL, BSD, *SHORT, CHINESE], ids=lambda text: text[:12])
def test_headers_of_known_shape_go_whole(licence: str) -> None:
    code = "int x;\n"
    for header in (within(licence), behind("//", licence), behind("#", licence), behind("--", licence)):
        assert clean_text(header + "\n" + code) == code
    assert clean_text(f"<!--\n{licence}\n-->\n<p>Text.</p>\n") == "<p>Text.</p>\n"
    assert clean_text(f"<!-- {SHORT[1]} -->\n<p>Text.</p>\n") == "<p>Text.</p>\n"


@pytest.mark.parametrize(
    "text",
    [
        '#include "copyright.h"\n#include <stdio.h>\n#define LICENSE 1\n\nint main;\n',
        '# include "license.h"\n#pragma once\nint main;\n',
        "# Copyright law in Europe\n\nIt is old.\n",
        "## License\n\nMIT.\n",
        "# Copyright 2020 in Europe\n\nA year in review.\n",
        "# Licensed under pressure: terms that changed\n\nA story.\n",
        "# Licensed under the MIT terms: a history\n\nA story.\n",
        "# Released into the public domain\n\nHow films get there.\n",
        "Copyright (c) 2031 stands here as prose.\n\nText.\n",
        "// How the licence server is asked for a licence.\nask();\n",
        "# Copies are counted by copyright holder.\nx = 1\n",
        '"""Licensed under the MIT licence."""\nx = 1\n',
        "x = 1\n# Copyright (c) 2031 A.\n# Licensed under the MIT licence.\n",
        "/* Copyright (c) 2031 A. */ int x;\n",
        "/* Copyright (c) 2031 A.\nint x;\n",
        'print("copyright (c) 2031")\n',
        "---\ntitle: Copyright (c) 2031\n---\nText.\n",
        "# 许可证的历史\n\n很长。\n",
        "#region Copyright (c) 2031\nint x;\n#endregion\n",
    ],
)
def test_content_stays(text: str) -> None:
    counts: Counter[str] = Counter()
    assert clean_text(text, counts=counts) == text and "licence" not in counts


@pytest.mark.parametrize("licence", [APACHE, GPL, BSD, CHINESE], ids=lambda text: text[:12])
def test_the_rest_of_a_comment_stays(licence: str) -> None:
    above, below = "tides.c: when the next high tide comes.", "Usage: tides HARBOUR DAY"
    code = "int x;\n"
    mixed = f"{above}\n\n{licence}\n\n{below}"
    assert clean_text(within(mixed) + code) == within(f"{above}\n\n{below}") + code
    assert clean_text(behind("#", mixed) + code) == behind("#", f"{above}\n\n{below}") + code
    assert clean_text(within(f"{licence}\n\n{below}") + code) == within(below) + code
    assert clean_text(f"/* {licence}\n\n   {below} */\n{code}") == f"/*\n   {below} */\n{code}"
    assert clean_text(f"/* {below}\n\n   {licence} */\n{code}") == f"/* {below}\n */\n{code}"


def test_lines_beside_a_notice_stay() -> None:
    assert clean_text("# Copyright (c) 2031 A\n# Sorts the tides.\nx = 1\n") == "# Sorts the tides.\nx = 1\n"
    assert clean_text("// Licensed under MIT.\n// Sorts the tides.\nx();\n") == "// Sorts the tides.\nx();\n"
    text = "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Copyright (c) 2031 A\n\nx = 1\n"
    assert clean_text(text) == "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\nx = 1\n"
    assert clean_text("<?php\n/* Copyright (c) 2031 A */\nx();\n") == "<?php\nx();\n"
    assert clean_text("// Licensed under the MIT licence\nx();\n") == "x();\n"
    assert clean_text("# Licensed under the MIT licence.\nx = 1\n") == "x = 1\n"


def test_what_may_stand_above_a_header() -> None:
    header = "# Copyright (c) 2031 A.\n# Licensed under the MIT licence.\n"
    for above in ('"""A docstring\nof two lines.\n"""\n\n', "#!/bin/sh\n", "# Of another kind.\n\n", "/* b */\n"):
        assert clean_text(above + header + "\nx = 1\n") == above + "\nx = 1\n"
    for above in ("import os\n\n", '"""Not closed.\n\n', "x = '''a\n'''\n\n", '"""One.""" + x\n\n'):
        assert clean_text(above + header + "x = 1\n") == above + header + "x = 1\n"


def test_what_went_is_told() -> None:
    headers: list[str] = []
    notice = "# Copyright (c) 2031 A"
    clean_text(f"{notice}\n# Sorts the tides.\n\n/* Copyright (c) 2031 B */\nx\n", headers=headers)
    assert headers == [notice, "/* Copyright (c) 2031 B */"]
    clean_text(f"{notice}\nx\n", headers=headers, licences=False)
    assert len(headers) == 2


def test_a_header_ends_within_the_first_40_000_characters() -> None:
    fill = "# Nothing but a comment that is long.\n" * 2000
    assert clean_text(fill + "\n# Copyright (c) 2031 A\nx\n").count("Copyright") == 1
    assert clean_text("# Copyright (c) 2031 A\n\n" + fill + "x\n").count("Copyright") == 0


def test_hostile_comments_take_linear_time() -> None:
    lines = ("copyright (c) licensed under licence ", "# copyright (c)\n# licensed under\n", "/*" + " " * 1000, "' ) ")
    for line in lines:
        text = "# © 2031\n# " + line * (200_000 // len(line))
        assert clean_text(text + "\n") is not None
